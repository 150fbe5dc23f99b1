"""One worker as its supervisor sees it: its items, its limits, and what its end means."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from scripted import ITEMS, first_stage
from toy_plugin import STAGES

from runner.errors import (
    BudgetError,
    ExitCode,
    ModelError,
    OutOfMemoryError,
    StageError,
    StorageError,
    WorkerDiedError,
)
from runner.machine.cgroup import MemoryGroup
from runner.supervisor import stage_worker as stage_module

if TYPE_CHECKING:
    from project import Project
    from scripted import Stage


def test_items_are_done_when_their_files_are_there(stage: Stage) -> None:
    stage.run("done(*ids); finish()")
    assert stage.ended() == [(name, "done") for name in "abcd"]
    assert stage.settled == [("a", True), ("b", True), ("c", True)]
    (finished,) = stage.of("stage_finished")
    assert (finished["done"], finished["failed"], finished["cached"]) == (4, 0, 0)
    assert all(e["seconds"] == 0.5 for e in stage.of("item_finished"))


def test_an_item_whose_handoff_is_not_there_has_failed(stage: Stage) -> None:
    """Files are the truth, not the worker's word."""
    stage.run(
        "done('a'); begin('b'); say('item_finished', item='b', status='done', seconds=1); done('c'); finish()"
    )
    assert stage.ended() == [("a", "done"), ("b", "failed"), ("c", "done"), ("d", "done")]
    error = next(e["error"] for e in stage.of("item_finished") if e["item"] == "b")
    assert error.endswith("is missing, though the stage reported success")
    assert stage.settled[1] == ("b", False)


def test_a_handoff_that_was_deleted_at_once_is_not_there(stage: Stage) -> None:
    stage.run(
        "make('a'); places['a'].handoff.unlink(); begin('a'); "
        "say('item_finished', item='a', status='done', seconds=1); done('b', 'c'); finish()"
    )
    assert dict(stage.ended())["a"] == "failed"


def test_a_failed_item_has_its_error_and_its_traceback_in_the_log(stage: Stage) -> None:
    stage.run(
        "done('a'); begin('c'); say('item_finished', item='c', status='failed', seconds=1, error='no',"
        " traceback='where', attempts=2); done('b'); finish()"
    )
    assert stage.ended() == [("a", "done"), ("c", "failed"), ("d", "failed"), ("b", "done")]
    failed = [e for e in stage.of("item_finished") if e["status"] == "failed"]
    assert [(e["error"], e["traceback"], e["attempts"]) for e in failed] == [("no", "where", 2)] * 2


def test_a_state_goes_when_its_item_is_done_and_stays_when_it_failed(stage: Stage) -> None:
    for task in stage.tasks:
        state = stage.directory.state("make", task.keyed.key)
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_bytes(b"saved")
    stage.run(
        "done('a'); begin('b'); say('item_finished', item='b', status='failed', seconds=1, error='no');"
        "done('c'); finish()"
    )
    keys = {task.item.id: task.keyed.key for task in stage.tasks}
    assert [path.stem for path in stage.directory.states("make")] == [keys["b"]]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os._exit(0)", "its worker exited with code 0 while it made 'b'"),
        ("os._exit(3)", "its worker exited with code 3 while it made 'b'"),
        ("os.kill(os.getpid(), 9)", "its worker was ended by signal 9 while it made 'b'"),
        ("os.write(events, b'half a line'); os._exit(0)", "its worker exited with code 0"),
    ],
)
def test_a_worker_that_ends_before_it_has_finished_has_died(stage: Stage, end: str, words: str) -> None:
    script = f"print('last words')\nsys.stdout.flush()\ndone('a')\nbegin('b')\n{end}"
    attempts = stage.attempts(script)
    attempts.placed = stage.plan.chosen
    run = attempts._worker(stage.tasks, 1)
    with pytest.raises(WorkerDiedError, match=words) as died:
        run.run(attempts.launchers, stage.directory.log("make"))
    assert "| last words" in str(died.value)
    assert list(run.in_flight) == ["b"]
    assert stage.ended() == [("a", "done")]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ExitCode.MODEL, ModelError),
        (ExitCode.STORAGE, StorageError),
        (ExitCode.STAGE, StageError),
        (ExitCode.BUDGET, BudgetError),
    ],
)
def test_what_a_worker_could_not_go_on_from(stage: Stage, code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="stage 'make': the reason") as failed:
        stage.run(
            f"print('a line'); sys.stdout.flush(); say('failed', code={int(code)}, error='the reason'); sys.exit(1)"
        )
    assert "| a line" in str(failed.value)
    assert not isinstance(failed.value, WorkerDiedError | OutOfMemoryError)


def test_items_of_which_one_is_stuck(toy: Project) -> None:
    """It fails; its neighbours in the group are made by the next worker."""
    toy.write("toy.toml", STAGES + ITEMS)
    stage = first_stage(toy, "toy.toml", ["stage.make.timeout=8"])
    script = "(begin(*ids), say('stuck', item='b', seconds=9.0), time.sleep(60)) if worker == 0 else (done(*ids), finish())"
    stage.run(script, chosen=stage.grouped(3))
    assert stage.ended() == [("b", "failed"), ("a", "done"), ("c", "done")]
    (died,) = stage.of("worker_died")
    assert died["items"] == []
    error = stage.of("item_finished")[0]
    assert error["error"] == "it took longer than its timeout of 8 s"
    assert error["seconds"] == 9.0


def test_a_worker_that_says_nothing_has_hung(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "HEARTBEAT_GRACE", 0.0)
    toy.write("toy.toml", STAGES + ITEMS)
    stage = first_stage(toy, "toy.toml", ["stage.make.timeout=2"])
    script = "(done('a'), begin('b'), time.sleep(60)) if worker == 0 else (done(*ids), finish())"
    stage.run(script)
    (died,) = stage.of("worker_died")
    assert died["items"] == ["b"]
    assert "its worker hung while it made 'b'" in died["error"]
    assert stage.ended() == [("a", "done"), ("c", "done"), ("b", "done")]


def test_silence_is_no_harm_without_a_timeout_or_an_item(
    toy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "HEARTBEAT_GRACE", 0.0)
    toy.write("toy.toml", STAGES + ITEMS)
    for timeout, script in ((None, "begin('a'); time.sleep(0.3)"), ("2", "time.sleep(2.5)")):
        stage = first_stage(toy, "toy.toml", [f"stage.make.timeout={timeout}"] if timeout else [])
        stage.run(f"{script}; done(*ids); finish()")
        assert stage.of("worker_died") == []
        shutil.rmtree(stage.directory.path)


def test_a_worker_that_shows_that_it_lives_has_not_hung(
    toy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "HEARTBEAT_GRACE", 0.0)
    toy.write("toy.toml", STAGES + ITEMS)
    stage = first_stage(toy, "toy.toml", ["stage.make.timeout=2"])
    stage.run("begin('a')\nfor _ in range(25): say('alive'); time.sleep(0.1)\ndone(*ids); finish()")
    assert stage.of("worker_died") == []


@pytest.mark.parametrize("by", ["whoever is first", "the watchdog"])
def test_a_worker_over_its_ram_is_ended(toy: Project, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "the watchdog":  # where no control group can be made
        monkeypatch.setattr(MemoryGroup, "make", lambda _limit: None)
    toy.write("toy.toml", STAGES + ITEMS)
    stage = first_stage(toy, "toy.toml", ["budget.ram=600MiB", "run.on_oom=fail"])
    script = "held = []\ndone('a')\nbegin('b')\nfor _ in range(400): held.append(b'x' * (1 << 22)); time.sleep(0.002)"
    with pytest.raises(OutOfMemoryError, match="went over its RAM budget while making 'b': it held"):
        stage.run(script)
    (finished,) = stage.of("stage_finished")
    assert finished["measured"]["ram"] > 500 << 20


def test_peaks_are_the_most_that_was_said_or_seen(stage: Stage) -> None:
    stage.run(f"done(*ids); finish(ram={1 << 40}, vram=1000, vram_reserved=900)")
    (finished,) = stage.of("stage_finished")
    assert finished["measured"] == {"ram": 1 << 40, "vram": 1000, "vram_reserved": 900}
    stage.events.clear()
    stage.run("done(*ids); finish(vram_reserved=900)")  # the driver reports nothing
    (finished,) = stage.of("stage_finished")
    assert (finished["measured"]["vram"], finished["measured"]["vram_reserved"]) == (900, 900)
    stage.events.clear()
    stage.run("done(*ids); finish(ram=1)")
    (finished,) = stage.of("stage_finished")
    assert finished["measured"]["ram"] > 1 << 20
    assert finished["measured"]["vram"] is None


def test_what_a_worker_says_is_passed_on(stage: Stage) -> None:
    stage.run(
        "begin('c'); say('progress', item='c', step=1, steps=2); say('state_discarded', item='c', reason='old');"
        "say('warning', item='c', kind='cut', message='m', details={'n': 1});"
        "say('retrying', item='c', error='e', traceback='t', attempts=1); say('alive'); say('later');"
        "done(*ids); finish(streamed={'read': 1, 'waited': 2.0})"
    )
    (progress,) = stage.of("progress")
    assert {name: progress[name] for name in ("stage", "item", "step", "steps")} == {
        "stage": "make",
        "item": "c",
        "step": 1,
        "steps": 2,
    }
    assert [(e["item"], e["details"]) for e in stage.of("warning")] == [("c", {"n": 1}), ("d", {"n": 1})]
    assert stage.of("state_discarded")[0]["reason"] == "old"
    assert stage.of("retrying")[0]["attempts"] == 1
    assert stage.of("stage_finished")[0]["streamed"] == {"read": 1, "waited": 2.0}


def test_an_item_that_is_to_be_tried_again_is_not_under_way(stage: Stage) -> None:
    """A death between its attempts is not its fault."""
    script = "(begin('a'), say('retrying', item='a', error='no'), os._exit(3)) if worker == 0 else (done(*ids), finish())"
    stage.run(script)
    assert stage.of("worker_died")[0]["items"] == []
