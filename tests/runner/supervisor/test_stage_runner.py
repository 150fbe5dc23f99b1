"""A stage to its end: new workers where they die, less held where memory runs out, and when to give up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from scripted import first_stage
from toy_plugin import STAGES

from runner.errors import OutOfMemoryError, WorkerDiedError
from runner.supervisor.stage_runner import PATIENCE

if TYPE_CHECKING:
    from project import Project
    from scripted import Stage

    from runner.plan.placement_option import PlacementOption

ITEMS = "".join(f'[[item]]\nid = "{name}"\nprompt = "{name}"\n' for name in "abcd")


@pytest.fixture
def stage(toy: Project) -> Stage:
    """A stage of four items, ``a`` to ``d``."""
    toy.write("toy.toml", STAGES + ITEMS)
    return first_stage(toy, "toy.toml")


def seen(stage: Stage) -> list[str]:
    """What each worker was given: items and the size of its groups, as its script reports with ``reported()``."""
    return [e["message"] for e in stage.of("warning")]


TELL = "\nsay('warning', item=ids[0], kind='k', message=' '.join(ids) + f' by {job.group}', details={})\n"


def test_items_that_a_worker_died_at_come_last_and_one_by_one(stage: Stage) -> None:
    script = TELL + "(begin('a', 'b'), os._exit(3)) if worker == 0 else (done(*ids), finish())"
    stage.run(script, chosen=stage.grouped(2))
    assert seen(stage) == ["a b c d by 2", "c d by 2", "a b by 1"]
    assert stage.ended() == [(name, "done") for name in "cdab"]
    assert [e["items"] for e in stage.of("worker_died")] == [["a", "b"]]


def test_who_brings_down_a_second_worker_has_failed(stage: Stage) -> None:
    script = "for name in ids:\n    begin(name)\n    if name == 'b': os._exit(3)\n    done(name)\nfinish()"
    stage.run(script)
    assert stage.ended() == [("a", "done"), ("c", "done"), ("d", "done"), ("b", "failed")]
    error = stage.of("item_finished")[-1]["error"]
    assert error.startswith(
        "given up after a second worker died: stage 'make': its worker exited with code 3"
    )
    assert len(stage.of("worker_died")) == 2


def test_where_workers_die_and_nothing_is_done_the_stage_has_failed(toy: Project) -> None:
    toy.write("toy.toml", STAGES + ITEMS)
    stage = first_stage(toy, "toy.toml")
    with pytest.raises(WorkerDiedError, match="exited with code 3"):
        stage.run("os._exit(3)")
    assert len(stage.of("worker_died")) == PATIENCE
    assert len(stage.of("stage_finished")) == 1


def test_patience_begins_anew_with_each_item_that_gets_done(stage: Stage) -> None:
    """Deaths that no item is to blame for, six in all, never four in a row."""
    script = "(os._exit(3) if worker in (0, 1, 2, 4, 5, 6) else (done(ids[0]), os._exit(3) if len(ids) > 1 else finish()))"
    stage.run(script)
    assert [status for _, status in stage.ended()] == ["done"] * 4


def test_all_failed_by_deaths_is_the_stages_failure_unless_something_was_there(stage: Stage) -> None:
    script = "begin(ids[0]); os._exit(3)"
    stage.tasks = stage.tasks[:1]
    with pytest.raises(WorkerDiedError):
        stage.run(script)
    stage.run(script, cached=1)
    assert stage.ended() == [("a", "failed")] * 2


OUT = "say('failed', code=5, out_of_memory=True, error='out of memory: 7 bytes', vram={vram}, ram={ram})\nsys.exit(5)"


def lower(stage: Stage, *groups: int) -> dict[str, Any]:
    """Placements to go down, distinguished by their groups."""
    found: list[PlacementOption] = [replace(stage.plan.chosen, placement=f"by {g}", group=g) for g in groups]
    return {"chosen": found[0], "lower": tuple(found[1:])}


def test_out_of_memory_goes_down_the_placements(stage: Stage) -> None:
    script = (
        TELL
        + "if worker < 2:\n    done(ids[0])\n    "
        + OUT.format(vram=1000, ram=1 << 40).replace("\n", "\n    ")
        + "\ndone(*ids); finish(ram=5)"
    )
    attempts = stage.run(script, **lower(stage, 4, 2, 1))
    assert seen(stage) == ["a b c d by 4", "b c d by 2", "c d by 1"]
    reported = [(e["placement"], e["next"]) for e in stage.of("out_of_memory")]
    assert reported == [("by 4", "by 2"), ("by 2", "by 1")]
    assert all(e["measured"]["ram"] == 1 << 40 for e in stage.of("out_of_memory"))
    assert "out of memory: 7 bytes" in stage.of("out_of_memory")[0]["error"]
    assert attempts.placed.placement == "by 1"
    (finished,) = stage.of("stage_finished")
    # peaks are those of the placement that it ended with
    assert finished["measured"]["ram"] < 1 << 40
    assert finished["measured"]["vram"] is None


def test_with_nothing_left_to_go_down_to_the_stage_has_failed(stage: Stage) -> None:
    with pytest.raises(OutOfMemoryError, match="stage 'make': out of memory: 7 bytes"):
        stage.run(OUT.format(vram=None, ram=1), **lower(stage, 2, 1))
    assert [e["next"] for e in stage.of("out_of_memory")] == ["by 1", None]
    assert len(stage.of("stage_finished")) == 1


def test_the_same_once_more_only_where_something_was_done(stage: Stage) -> None:
    """What the items before left behind is not in a fresh process; without any, nothing would change."""
    script = "done('a')\n" + OUT.format(vram=None, ram=1)
    with pytest.raises(OutOfMemoryError):
        stage.run(OUT.format(vram=None, ram=1), lower=())
    assert [e["next"] for e in stage.of("out_of_memory")] == [None]
    stage.events.clear()
    again = "if worker == 0:\n    " + script.replace("\n", "\n    ") + "\ndone(*ids); finish()"
    stage.run(again, lower=())
    assert [e["next"] for e in stage.of("out_of_memory")] == [stage.plan.chosen.placement]
    assert stage.ended() == [(name, "done") for name in "abcd"]


def test_on_oom_fail_goes_nowhere(toy: Project) -> None:
    toy.write("toy.toml", STAGES + ITEMS)
    stage = first_stage(toy, "toy.toml", ["run.on_oom=fail"])
    with pytest.raises(OutOfMemoryError):
        stage.run("done('a')\n" + OUT.format(vram=None, ram=1), **lower(stage, 2, 1))
    assert [e["next"] for e in stage.of("out_of_memory")] == [None]


def test_a_failure_to_stop_at_starts_no_other_worker(stage: Stage) -> None:
    from runner.errors import ItemFailedError

    script = "begin(*ids[:1]); say('item_finished', item=ids[0], status='failed', seconds=1, error='no'); os._exit(3)"
    attempts = stage.attempts(script, fail_fast=True)
    with pytest.raises(ItemFailedError):
        attempts.run(stage.tasks, 0)
    assert attempts.launchers.jobs == 1  # type: ignore[attr-defined]


def test_stages_say_what_was_predicted_and_cached(stage: Stage) -> None:
    stage.run("done(*ids); finish()", cached=3)
    (started,) = stage.of("stage_started")
    assert (started["items"], started["placement"]) == (4, stage.plan.chosen.placement)
    (finished,) = stage.of("stage_finished")
    assert (finished["cached"], finished["predicted"]) == (3, stage.plan.chosen.predicted)
    assert finished["seconds"] > 0
