"""Each item's time is its own, and a watchdog sees who does not come back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from runner.worker import item_timer as clock_module
from runner.worker.item_timer import ItemTimer, TimedOutError, Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator


class Time:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(clock_module, "active_seconds", lambda: self.now)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    with monkeypatch.context() as patch:
        yield Time(patch)


def test_it_runs_while_it_is_entered(passing: Time) -> None:
    timer = ItemTimer(5.0)
    passing.now += 100
    assert (timer.seconds, timer.runs) == (0.0, False)
    with timer:
        passing.now += 2
        assert (timer.seconds, timer.runs) == (2.0, True)
    passing.now += 100
    with timer:
        passing.now += 3
        timer.check()  # at its limit, not over it
        passing.now += 0.5
        with pytest.raises(TimedOutError, match="its timeout of 5 s"):
            timer.check()
    assert (timer.seconds, timer.runs) == (5.5, False)


def test_without_a_limit_nothing_is_too_long(passing: Time) -> None:
    with (timer := ItemTimer()):
        passing.now += 1e9
        timer.check()


@pytest.mark.usefixtures("passing")
def test_the_watchdog_tells_of_who_runs_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "HEARTBEAT", 0.001)
    monkeypatch.setattr(clock_module, "LATE", 2.0)
    stuck: list[ItemTimer] = []
    looked, reported = threading.Event(), threading.Event()
    clocks = [ItemTimer(0.0), ItemTimer(None), ItemTimer(3600.0), ItemTimer(1.0)]
    beats: list[None] = []

    def alive() -> None:
        beats.append(None)
        if len(beats) == 3:
            looked.set()

    def note(timer: ItemTimer) -> None:
        stuck.append(timer)
        reported.set()

    waiting, endless, patient, late = clocks
    with Watchdog(lambda: clocks, alive, note), endless, patient:
        # who waits has time; who is a little over it comes to a block or step by itself
        waiting._spent = late._spent = 2.5
        with late:
            assert looked.wait(30)
            assert not stuck
            late._spent = 3.5
            assert reported.wait(30)
    assert stuck == [late]
