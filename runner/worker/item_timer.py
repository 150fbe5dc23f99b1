"""Each item's own time, without waiting for its turn, and without the time that the process is suspended."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from runner.machine.active_time import active_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LATE = 2.0  # seconds after its time in which an item should come to a block or step, and end by itself
HEARTBEAT = 1.0  # seconds


class TimedOutError(Exception):
    """An item has computed for longer than it may."""


class ItemTimer:
    """Seconds that one item has computed: it runs while it is entered."""

    def __init__(self, limit: float | None = None) -> None:
        """``limit`` is in seconds."""
        self.limit = limit
        self._spent = 0.0
        self._since: float | None = None

    @property
    def runs(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        since = self._since
        return self._spent + (0.0 if since is None else active_seconds() - since)

    def __enter__(self) -> None:
        self._since = active_seconds()

    def __exit__(self, *_: object) -> None:
        self._spent, self._since = self.seconds, None

    def check(self) -> None:
        """Raise :class:`TimedOutError` if the time is over."""
        if self.limit is not None and self.seconds > self.limit:
            raise TimedOutError(f"it took longer than its timeout of {self.limit:g} s")


class Watchdog:
    """Tells of an item that came to no block or step long after its time: only killing helps then.

    It also sends a sign of life now and then, for code that lets no other thread run never sends one.
    """

    def __init__(
        self,
        clocks: Callable[[], Sequence[ItemTimer]],
        alive: Callable[[], None],
        stuck: Callable[[ItemTimer], None],
    ) -> None:
        """``clocks`` gives those that may run now, ``stuck`` is told which ran too long."""
        self._clocks = clocks
        self._alive = alive
        self._stuck = stuck
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            self._alive()
            for clock in self._clocks():
                if clock.runs and clock.limit is not None and clock.seconds > clock.limit + LATE:
                    self._stuck(clock)
                    return
