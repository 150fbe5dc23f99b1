"""Items that raise, hang or kill their worker: they are recorded, and the rest goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from toy_plugin import STAGES

from runner.events import Retrying
from runner.rundir.journal import read_journal

if TYPE_CHECKING:
    from project import Outcome, Project


def batch(toy: Project, **behave: str) -> None:
    tables = [
        f"[[item]]\nid = {json.dumps(name)}\nprompt = {json.dumps(name)}\nbehave = {json.dumps(how)}\n"
        for name, how in behave.items()
    ]
    toy.write("toy.toml", STAGES + "".join(tables))


def statuses(outcome: Outcome) -> dict[str, str]:
    return {e["item"]: e["status"] for e in outcome.of("item_finished") if e["stage"] == "make"}


def test_an_item_that_brings_its_worker_down_twice_is_set_aside(toy: Project) -> None:
    batch(toy, a="well", kills="die", b="well", leaves="exit", c="well")
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.code == 1, outcome
    assert statuses(outcome) == {"a": "done", "b": "done", "c": "done", "kills": "failed", "leaves": "failed"}
    assert [e["items"] for e in outcome.of("worker_died")] == [["kills"], ["leaves"], ["kills"], ["leaves"]]
    errors = {e["item"]: e["error"] for e in outcome.of("item_finished") if e["error"]}
    assert "its worker was ended by signal 9 while it made 'kills'" in errors["kills"]
    assert "its worker exited with code 3 while it made 'leaves'" in errors["leaves"]
    # every item that is done was made once
    started = [e["item"] for e in outcome.of("item_finished")]
    assert sorted(started) == sorted([*"abc", *"abc", "kills", "leaves"])


def test_whatever_an_item_raises_or_returns_is_its_own(toy: Project) -> None:
    batch(toy, a="well", quits="quit", b="shared", speechless="wordless", long="endless", c="well")
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.code == 1, outcome
    failed = {"quits", "speechless", "long"}
    assert {item for item, status in statuses(outcome).items() if status == "failed"} == failed
    assert statuses(outcome).keys() - failed == {*"abc"}
    errors = {e["item"]: e["error"] for e in outcome.of("item_finished") if e["error"]}
    assert errors == {
        "quits": "SystemExit: 3",
        "speechless": "Wordless",
        "long": "OutputError: 'caption' is longer than 1 MiB; return it as a File",
    }
    assert outcome.of("worker_died") == []


def test_an_item_over_its_time_fails_alone(toy: Project) -> None:
    (toy.folder / "flags/polite.never").touch()
    batch(toy, a="well", polite="wait", b="well", hangs="hang", c="well")
    outcome = toy.runner("run", "toy.toml", "--json", "--set", "stage.make.timeout=3")
    assert outcome.code == 1, outcome
    assert statuses(outcome) == {"a": "done", "b": "done", "c": "done", "polite": "failed", "hangs": "failed"}
    errors = {e["item"]: e for e in outcome.of("item_finished") if e["error"]}
    # one comes to its steps and ends there, the other must be killed
    assert errors["polite"]["error"] == "it took longer than its timeout of 3 s"
    assert "in behave" in errors["polite"]["traceback"]
    assert errors["hangs"]["error"] == "it took longer than its timeout of 3 s"
    assert len(outcome.of("worker_died")) == 1


def test_a_stage_that_brings_down_worker_after_worker_is_given_up(toy: Project) -> None:
    batch(toy, **{f"item{n}": "die" for n in range(9)})
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.code == 7, outcome
    assert "was ended by signal 9" in outcome.stderr
    assert len(outcome.of("worker_died")) < 9


def test_failed_items_are_tried_again_after_the_others(toy: Project) -> None:
    batch(toy, bad="raise", a="well", worse="nan", b="well")
    outcome = toy.runner("run", "toy.toml", "--json", "--set", "stage.make.retries=2")
    assert outcome.code == 1, outcome
    made = [e for e in outcome.of("item_finished") if e["stage"] == "make"]
    assert [e["item"] for e in made] == ["a", "b", "bad", "worse"]
    assert [e["attempts"] for e in made] == [1, 1, 3, 3]
    assert [e["item"] for e in outcome.of("retrying")] == ["bad", "worse"] * 2
    kept = [e for e in read_journal(toy.folder / "runs/toy/journal.jsonl") if isinstance(e, Retrying)]
    assert "ValueError: bad cannot be made" in kept[0].error


def test_fail_fast_stops_at_the_first_failure(toy: Project) -> None:
    batch(toy, a="well", bad="raise", b="wait")
    outcome = toy.runner("run", "toy.toml", "--json", "--fail-fast")
    assert outcome.code == 1, outcome
    assert statuses(outcome) == {"a": "done", "bad": "failed"}
    assert "stopped: item 'bad' failed in stage 'make' (--fail-fast)" in outcome.stderr
    assert [e["stage"] for e in outcome.of("stage_started")] == ["make"]


def test_retry_failed_makes_what_failed_and_no_more(toy: Project) -> None:
    batch(toy, a="well", bad="raise")
    assert toy.runner("run", "toy.toml").code == 1
    batch(toy, a="well", bad="well", new="well")
    outcome = toy.runner("run", "toy.toml", "--json", "--retry-failed")
    assert outcome.code == 0, outcome
    assert statuses(outcome) == {"bad": "done"}
    # nothing has failed any more
    outcome = toy.runner("run", "toy.toml", "--json", "--retry-failed")
    assert (outcome.code, outcome.of("stage_started")) == (0, []), outcome
    assert statuses(toy.runner("run", "toy.toml", "--json")) == {"new": "done"}
