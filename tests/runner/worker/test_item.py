"""One item's attempts: what is saved when, what ends it, and what its failure says."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from greenlet import GreenletExit
from worker_job import Reports, item_of

from runner.errors import StorageError
from runner.worker.checkpoint import CheckpointFile, snapshot
from runner.worker.item import (
    ERROR_LIMIT,
    TRACEBACK_LIMIT,
    CancelledError,
    ItemRun,
    WorkerItem,
    check_at_blocks,
)
from runner.worker.item_timer import ItemTimer, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.api import Saved
    from runner.events import Retrying

ENVIRONMENT = {"threads": "1"}


class Made:
    """An item that a test makes step by step."""

    def __init__(self, folder: Path, every: int = 5, limit: float | None = None) -> None:
        self.item = item_of(folder, "a")
        self.reports = Reports()
        self.stopping = threading.Event()
        self.file = CheckpointFile(self.item.state, self.item.key, torch.device("cpu"), ENVIRONMENT)
        timer = ItemTimer(limit)
        self.run = ItemRun(
            "stage", self.item, self.file, timer, self.reports, self.stopping, every, "float32"
        )

    def attempt(self, *acts: Callable[[ItemRun], object]) -> ItemRun:
        def attempt() -> None:
            with self.run.attempt():
                for act in acts:
                    act(self.run)

        with self.run.timer:
            contextvars.copy_context().run(attempt)
        return self.run

    @property
    def saved(self) -> Saved | None:
        found = self.file.load()
        return found.saved if found else None


FULL = object()
"""A state of a tensor that is full of the step's number."""


def step(n: int, steps: int = 9, state: Any = FULL) -> Callable[[ItemRun], None]:
    return lambda run: run.on_step(n, steps, torch.full((2,), float(n)) if state is FULL else state)


def failure_of(run: ItemRun) -> Retrying:
    assert run.failure is not None
    return run.failure


def fail(error: BaseException) -> Callable[[ItemRun], None]:
    def act(_run: ItemRun) -> None:
        raise error

    return act


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_states_are_saved_every_so_many_steps(tmp_path: Path) -> None:
    made = Made(tmp_path, every=3)
    at: list[int | None] = []

    def look(_run: ItemRun) -> None:
        at.append(made.saved.step if made.saved else None)

    made.attempt(*[act for n in range(1, 9) for act in (step(n), look)])
    assert at == [None, None, 3, 3, 3, 6, 6, 6]


def test_the_last_step_leaves_no_state(tmp_path: Path) -> None:
    made = Made(tmp_path, every=1)
    made.attempt(step(9, 9))
    assert made.saved is None


def test_a_step_without_a_state_saves_nothing(tmp_path: Path) -> None:
    made = Made(tmp_path, every=1)
    made.attempt(step(1, state=None))
    assert made.saved is None
    (progress,) = made.reports.of("progress")
    assert (progress["item"], progress["step"], progress["steps"]) == ("a", 1, 9)


def test_a_state_is_what_it_was_at_its_step(made: Made) -> None:
    """A stage's code may write into its own tensors afterwards."""
    mine = torch.ones(2)

    def go_on_and_stop(_run: ItemRun) -> None:
        mine.zero_()
        raise CancelledError

    made.attempt(step(1, state=mine), go_on_and_stop)
    assert made.saved is not None
    assert made.saved.step == 1
    assert torch.equal(made.saved.state, torch.ones(2))


def test_stopped_it_keeps_its_last_step(made: Made) -> None:
    def stop(_run: ItemRun) -> None:
        made.stopping.set()

    run = made.attempt(step(1), step(2), stop, step(3), fail(AssertionError("it went on")))
    assert made.saved is not None
    assert made.saved.step == 3
    assert (run.failure, run.ended) == (None, False)


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    made = Made(tmp_path, every=1)
    for n, bad in enumerate((float("nan"), float("inf")), 1):
        made.attempt(step(n, state={"good": torch.ones(2), "bad": torch.tensor([0.0, bad])}))
        assert made.saved is None


def test_a_failure_keeps_nothing_of_its_attempt(made: Made) -> None:
    """Neither on the disk nor for the moment when the next attempt is stopped."""
    made.attempt(step(5), step(6), fail(ValueError("no")))
    assert made.saved is None
    made.attempt(fail(CancelledError()))
    assert made.saved is None


def test_saving_goes_on_from_the_step_that_was_saved(tmp_path: Path) -> None:
    """After 3 of 3, the next is saved at 6, though the attempt begins anew at 4."""
    made = Made(tmp_path, every=3)
    made.file.save(4, 9, snapshot(torch.ones(1)), 1.0)
    made.attempt(lambda run: run.begin(), step(5), step(6))
    assert made.saved is not None
    assert made.saved.step == 4
    made.attempt(step(7))
    assert made.saved.step == 7


def test_a_state_of_no_use_is_reported(made: Made) -> None:
    made.item.state.parent.mkdir(parents=True)
    made.item.state.write_bytes(b"no state")
    assert made.run.begin() is None
    (discarded,) = made.reports.of("state_discarded")
    assert discarded["item"] == "a"
    assert discarded["reason"]


def test_done_it_keeps_its_state_until_the_supervisor_knows(tmp_path: Path) -> None:
    made = Made(tmp_path, every=1)
    run = made.attempt(step(1))
    assert (run.failure, run.ended) == (None, True)
    assert made.item.state.exists()


def test_what_a_failure_says(made: Made, capfd: pytest.CaptureFixture[str]) -> None:
    run = made.attempt(fail(ValueError("x" * 5000)))
    failure = failure_of(run)
    assert failure.error == f"ValueError: {'x' * 5000}"[:ERROR_LIMIT]
    assert (failure.stage, failure.item, failure.attempts) == ("stage", "a", 1)
    assert "raise error" in (failure.traceback or "")
    assert "ValueError" in capfd.readouterr().err
    run = made.attempt(fail(ValueError("y" * 50_000)))
    failure = failure_of(run)
    assert (len(failure.traceback or ""), failure.attempts) == (TRACEBACK_LIMIT, 2)
    run = made.attempt()
    assert (run.failure, run.ended) == (None, True)


def test_secrets_of_a_failure_are_in_no_log(made: Made, capfd: pytest.CaptureFixture[str]) -> None:
    token = "hf_" + "aB3" * 11
    made.attempt(fail(ValueError(f"refused with {token}")))
    assert token not in capfd.readouterr().err


@pytest.mark.parametrize("error", [SystemExit(3), KeyError("k"), BaseException("odd")])
def test_whatever_a_stage_raises_is_its_items_failure(made: Made, error: BaseException) -> None:
    assert type(error).__name__ in failure_of(made.attempt(fail(error))).error


@pytest.mark.parametrize(
    "error",
    [StorageError("full"), GreenletExit(), KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError()],
)
def test_what_concerns_the_whole_worker_is_raised(made: Made, error: BaseException) -> None:
    with pytest.raises(type(error)):
        made.attempt(fail(error))
    assert made.run.failure is None


def test_over_its_time_it_ends_at_its_next_step(tmp_path: Path) -> None:
    made = Made(tmp_path, limit=0.0)
    run = made.attempt(step(1), fail(AssertionError("it went on")))
    assert failure_of(run).error == "it took longer than its timeout of 0 s"


def test_blocks_are_places_to_end_too(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(depth))

    made = Made(tmp_path)
    net, alone = Net(2), Net(1)
    for module in (net, alone):
        check_at_blocks(module)
    for layer in (*net.layers, *alone.layers):
        layer(torch.ones(1))  # outside of an item there is nothing to end
    made.stopping.set()
    run = made.attempt(lambda _: alone.layers[0](torch.ones(1)), lambda _: net.layers[1](torch.ones(1)))
    assert (run.failure, run.ended) == (None, False)


def test_warnings_are_passed_on(made: Made) -> None:
    item = WorkerItem(made.run, None, {}, None)
    item.warn("prompt_cut", "m" * 5000, tokens=90)
    item.step(1, 2)
    (warning,) = made.reports.of("warning")
    assert warning == {
        "event": "warning",
        "stage": "stage",
        "item": "a",
        "kind": "prompt_cut",
        "message": "m" * ERROR_LIMIT,
        "details": {"tokens": 90},
    }
    assert len(made.reports.of("progress")) == 1


def test_a_timeout_is_reported_without_its_class() -> None:
    with pytest.raises(TimedOutError), (timer := ItemTimer(0.0)):
        timer.check()
