"""Nodes that send what they must not, and nodes that are left out."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from nodes import ODD, away, digests, local, nodes_of, prompts, run

if TYPE_CHECKING:
    from project import Project


@pytest.mark.parametrize("how", ["path", "unasked", "key", "digest", "pickle", "large"])
def test_a_node_that_sends_what_it_must_not_is_left_out_and_its_items_are_made_elsewhere(
    sent: Project, how: str
) -> None:
    away(sent, 2, prompts(6))
    before = local(sent)
    files = sent.files()
    sent.environment["ODD"] = how
    outcome = run(sent)
    assert outcome.code == 0, outcome
    (lost,) = outcome.of("node_lost")
    assert lost["node"] == "node-1"
    assert "it sent" in lost["reason"]
    assert digests(sent.folder / "runs/toy") == before
    new = {name for name in sent.files() - files if not name.startswith(("runs/toy/", "flags/"))}
    assert new == set()
    assert not list(sent.folder.parent.rglob("escaped"))


@pytest.mark.parametrize("how", ["forged", "absent"])
def test_damaged_results_are_made_again_and_fail_where_nobody_makes_better_ones(
    sent: Project, how: str
) -> None:
    away(sent, 2, prompts(6))
    before = local(sent)
    sent.environment["ODD"] = how
    outcome = run(sent)
    assert outcome.code == 0, outcome
    assert digests(sent.folder / "runs/toy") == before
    alone = sent.runner("run", "away.toml", "--fresh", "--json", "--set", "executor.nodes=1")
    assert alone.code == 7, alone
    assert "its results are damaged" in alone.stderr
    assert digests(sent.folder / "runs/toy") == before


def test_what_a_node_may_not_tell_is_not_reported(sent: Project) -> None:
    away(sent, 1, prompts(2))
    sent.environment["ODD"] = "event"
    outcome = run(sent)
    assert outcome.code == 0, outcome
    assert len(outcome.of("run_finished")) == 1


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("version", 4, "it has torch 1.0, not "),
        ("stage", 4, "it has toy.make version 9, not 1"),
        ("model", 8, "its model's files differ, for make"),
    ],
)
def test_a_node_that_is_unlike_is_left_out_with_the_reason(
    sent: Project, how: str, code: int, words: str
) -> None:
    away(sent, 2, prompts(2))
    sent.environment["ODD"] = how
    outcome = run(sent)
    assert outcome.code == 0, outcome
    (refused,) = outcome.of("node_refused")
    assert (refused["node"], refused["code"]) == ("node-1", code)
    assert words in refused["reason"]
    assert nodes_of(outcome) == {"node-0"}
    alone = run(sent, "--fresh", "--set", "executor.nodes=1")
    assert alone.code == code, alone
    assert "no node can take part:" in alone.stderr
    assert words in alone.stderr


def test_nodes_that_are_too_small_are_left_out(sent: Project) -> None:
    away(sent, 1, prompts(2), sets='[stage.budget]\nram = "1MiB"\n')
    outcome = run(sent)
    assert outcome.code == 5, outcome
    assert "no node can take part:" in outcome.stderr


def test_an_item_is_not_to_blame_for_the_disks_of_nodes(sent: Project) -> None:
    """Two nodes are left out while they make it: it has not failed."""
    away(sent, 2, '[[item]]\nid = "only"\nprompt = "x"\n')
    sent.plugin("away", ODD.replace("Odd if n == self._last and HOW", "Odd if HOW"))
    sent.environment["ODD"] = "full"
    outcome = run(sent)
    assert outcome.code == 9, outcome
    assert [e["reason"] for e in outcome.of("node_refused")] == ["its disk is full"] * 2
    assert outcome.of("item_finished") == []


@pytest.mark.parametrize(
    ("limit", "reason"), [(0, "its temporary folder cannot be used: "), (1, "File too large")]
)
def test_a_node_whose_disk_is_full_is_left_out_with_the_reason(
    sent: Project, limit: int, reason: str
) -> None:
    """By a limit on the size of files: of its own at the start, and of those that it is sent."""
    away(sent, 2, prompts(4))
    before = local(sent)
    sent.runner("run", "toy.toml")
    shutil.rmtree(sent.folder / "runs/toy/outputs")
    first = f"mkdir {sent.folder}/one 2>&- && ulimit -f {limit}; exec $0 $@"
    command = json.dumps(["sh", "-c", first])
    outcome = run(sent, "--set", f"executor.command={command}")
    assert outcome.code == 0, outcome
    (refused,) = outcome.of("node_refused")
    assert refused["code"] == 9
    assert reason in refused["reason"]
    assert outcome.of("node_lost") == []
    assert digests(sent.folder / "runs/toy") == before


@pytest.mark.parametrize("new", ["None", "[None]"])
def test_an_executor_that_is_broken_is_named(sent: Project, new: str) -> None:
    away(sent, 1, prompts(1))
    sent.plugin("away", f"{ODD}\n\nProcesses.new = lambda self: {new}\n")
    outcome = run(sent)
    assert outcome.code == 4, outcome
    assert "executor 'away': " in outcome.stderr
    assert "Traceback" not in outcome.stderr
