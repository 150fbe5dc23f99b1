"""One worker that is asked to stop, or ended: what becomes of its items, and that nothing is left of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import (
    InterruptedRunError,
    ItemFailedError,
    StorageError,
)
from runner.events import Progress
from runner.supervisor.processes import connection

if TYPE_CHECKING:
    from scripted import Stage

    from runner.events import Event


def interrupted(stage: Stage, script: str, times: int) -> list[dict[str, Any]]:
    """Run with so many requests to stop as soon as the first item is under way."""

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            stage.interrupts.count += times

    attempts = stage.attempts(script)
    attempts.publisher.events.listeners.append(on_event)
    with pytest.raises(InterruptedRunError, match="stopped in stage 'make'"):
        attempts.run(stage.tasks, 0)
    return stage.events


UNDER_WAY = "begin('a'); say('progress', item='a', step=1, steps=2);"


def test_asked_to_stop_a_worker_may_end_its_step(stage: Stage) -> None:
    interrupted(
        stage, UNDER_WAY + "assert type(next(reported)).__name__ == 'Stop'; done('a'); sys.exit(0)", 1
    )
    assert stage.ended() == [("a", "done")]


def test_asked_twice_it_is_ended(stage: Stage) -> None:
    interrupted(stage, UNDER_WAY + "sys.stdin.buffer.readline(); done('a')", 2)
    assert stage.ended() == []


def test_a_worker_that_is_at_no_item_is_ended_at_once(stage: Stage) -> None:
    stage.interrupts.count = 1
    with pytest.raises(InterruptedRunError):
        stage.run("sys.stdin.buffer.readline(); done('a')")
    assert stage.ended() == []


def test_to_fail_fast_is_to_stop_at_the_first_failure(stage: Stage) -> None:
    script = (
        "begin('a'); say('item_finished', item='a', status='failed', seconds=1, error='no');"
        "begin('b'); next(reported); sys.exit(0)"
    )
    with pytest.raises(ItemFailedError, match="item 'a' failed in stage 'make'"):
        stage.run(script, fail_fast=True)
    assert stage.ended() == [("a", "failed")]
    assert not stage.of("worker_died")


def test_no_worker_is_left_behind_after_an_error_here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    start = connection.WorkerConnection.__init__

    def noted(self: Any, process: Any, job: Any) -> None:
        made.append(self)
        start(self, process, job)

    monkeypatch.setattr(connection.WorkerConnection, "__init__", noted)

    def full(_task: object, _done: bool) -> None:
        raise StorageError("no room")

    attempts = stage.attempts("done('a'); time.sleep(20)")
    attempts.settle = full
    with pytest.raises(StorageError):
        attempts.run(stage.tasks, 0)
    assert made[0].exit_code == -signal.SIGKILL
