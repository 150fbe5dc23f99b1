"""Times items on an accelerator, which computes after the call that queued the work has returned.

By the host's clock, the item that waits for the device would pay for the work of all items before it. So an
event is recorded at the start and the end of each turn of an item, and the time between the two is counted.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.machine.active_time import active_seconds
from runner.worker.item_timer import ItemTimer

if TYPE_CHECKING:
    import torch

    from runner.accelerator.backends.generic import AcceleratorBackend


@dataclass
class _Turn:
    timer: DeviceTimer
    start: torch.Event
    end: torch.Event | None = None


class DeviceTurns:
    """The turns of items in the order in which the device runs them; the watchdog's thread reads them too."""

    def __init__(self, backend: AcceleratorBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._queue: deque[_Turn] = deque()
        self._head_since = 0.0

    def begin(self, timer: DeviceTimer) -> None:
        with self._lock:
            if not self._queue:
                self._head_since = active_seconds()
            self._queue.append(_Turn(timer, self._mark()))

    def end(self) -> None:
        with self._lock:
            self._queue[-1].end = self._mark()

    def settle(self) -> None:
        """Wait until the device has done the current turn's work so far.

        Raises:
            torch.AcceleratorError: the work failed.

        """
        with self._lock:
            turn, mark = self._queue[-1], self._mark()
            mark.synchronize()
            turn.timer.add(turn.start, mark)
            turn.start = mark
            self._head_since = active_seconds()
        self.update()

    def update(self) -> None:
        """Charge the items whose turns the device has ended."""
        with self._lock:
            while self._queue and (end := self._queue[0].end) is not None and end.query():
                turn = self._queue.popleft()
                turn.timer.add(turn.start, end)
                self._head_since = active_seconds()

    def seconds_on_device(self, timer: DeviceTimer) -> float:
        """How long the device has worked on the current turn of this item; 0 if it works on another item."""
        with self._lock:
            at_it = bool(self._queue) and self._queue[0].timer is timer
            return active_seconds() - self._head_since if at_it else 0.0

    def _mark(self) -> torch.Event:
        mark = self._backend.event(timing=True)
        mark.record(self._backend.current_stream())
        return mark


class DeviceTimer(ItemTimer):
    """Measures the seconds that the device computes one item."""

    def __init__(self, limit: float | None, turns: DeviceTurns) -> None:
        """``limit`` is in seconds."""
        super().__init__(limit)
        self._turns = turns

    @property
    def runs(self) -> bool:
        return self._turns.seconds_on_device(self) > 0.0

    @property
    def seconds(self) -> float:
        self._turns.update()
        return self._spent + self._turns.seconds_on_device(self)

    def add(self, start: torch.Event, end: torch.Event) -> None:
        """Charge the time between two events."""
        self._spent += start.elapsed_time(end) / 1000

    def settle(self) -> None:
        self._turns.settle()

    def __enter__(self) -> None:
        self._turns.begin(self)

    def __exit__(self, *_: object) -> None:
        self._turns.end()
