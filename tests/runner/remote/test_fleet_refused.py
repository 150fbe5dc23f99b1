"""Nodes that send what they must not, and nodes that are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nodes import away, digests, local, nodes_of, prompts, run

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
