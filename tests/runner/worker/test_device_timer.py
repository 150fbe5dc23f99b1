"""The time that the device computes an item is charged to that item, whoever waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import device_programs as programs
import pytest

from runner.worker import device_timer
from runner.worker.device_timer import DeviceTimer, DeviceTurns

if TYPE_CHECKING:
    from sim.forked import Simulation


@pytest.mark.parametrize("policy", ["late-compute", "late"])
def test_who_waits_for_the_device_is_not_charged_with_the_work_of_others(
    simulation: Simulation, policy: str
) -> None:
    found = simulation.call(programs.timed, policy=policy)
    assert found["light"] < 0.8 * found["waited"]
    assert found["light"] < found["heavy"]
    assert found["runs"]
    assert not found["ended"][1]


class Card:
    """A device whose work takes as many seconds as it is given, while the host's clock goes on."""

    def __init__(self) -> None:
        self.now, self.queued, self.done = 100.0, 0.0, 0.0

    def compute(self, seconds: float) -> None:
        """Queue work; it is done as time passes."""
        self.queued += seconds

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.done = min(self.queued, self.done + seconds)

    def event(self, *, timing: bool) -> Mark:
        assert timing
        return Mark(self)

    def current_stream(self) -> Card:
        return self


class Mark:
    """An event of the card."""

    def __init__(self, card: Card) -> None:
        self._card, self._at = card, 0.0

    def record(self, stream: Card) -> None:
        self._at = stream.queued

    def query(self) -> bool:
        return self._card.done >= self._at

    def synchronize(self) -> None:
        self._card.wait(max(0.0, self._at - self._card.done))

    def elapsed_time(self, end: Mark) -> float:
        assert end.query()
        return 1000 * (end._at - self._at)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setattr(device_timer, "active_seconds", lambda: made.now)
    return made


def timers(card: Any) -> tuple[DeviceTimer, DeviceTimer]:
    turns = DeviceTurns(card)
    return DeviceTimer(9.0, turns), DeviceTimer(9.0, turns)


def test_the_item_that_the_device_is_at_is_the_one_that_runs(card: Card) -> None:
    heavy, light = timers(card)
    with heavy:
        card.compute(5)
    with light:
        card.compute(1)
    assert (heavy.seconds, light.seconds) == (0.0, 0.0)
    card.wait(3)
    assert (heavy.seconds, heavy.runs, light.seconds, light.runs) == (3.0, True, 0.0, False)
    card.wait(2.5)
    assert (heavy.seconds, light.seconds) == (5.0, 0.0), "it is not charged with what came before it"
    card.wait(0.5)
    assert (heavy.seconds, light.seconds, heavy.runs, light.runs) == (5.0, 1.0, False, False)
    card.wait(100)
    with light:
        assert light.seconds == 1.0, "nothing is charged while the device has nothing to do"


def test_after_settling_nothing_is_charged_twice(card: Card) -> None:
    heavy, light = timers(card)
    with heavy:
        card.compute(4)
    with light:
        card.compute(2)
        light.settle()
        assert (card.now, heavy.seconds, light.seconds) == (106.0, 4.0, 2.0)
        card.compute(3)
        card.wait(1)
        assert light.seconds == 3.0
        light.settle()
        assert light.seconds == 5.0
    card.wait(2)
    assert (heavy.seconds, light.seconds) == (4.0, 5.0)
