"""Time limits of items; only time in which an item computes counts, not waiting or suspension."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from runner.machine.active_time import active_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LATE = 2.0  # seconds after its limit in which an item should reach a block or step, and end by itself
HEARTBEAT = 1.0  # seconds


class TimedOutError(Exception):
    """An item has computed for longer than its limit."""


class ItemTimer:
    """Measures the seconds that one item computes, while the context is active."""

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

    def settle(self) -> None:
        """Wait for what was computed so far, so that ``seconds`` and errors of it are this item's."""

    def check(self) -> None:
        """Raise :class:`TimedOutError` if the limit is reached."""
        if self.limit is not None and self.seconds > self.limit:
            raise TimedOutError(f"it took longer than its timeout of {self.limit:g} s")


class Watchdog:
    """A thread that reports an item which has not ended long after its limit: the worker must be killed then.

    It also calls ``alive`` every second: silence means that the stage's code blocks all threads.
    """

    def __init__(
        self,
        timers: Callable[[], Sequence[ItemTimer]],
        alive: Callable[[], None],
        stuck: Callable[[ItemTimer], None],
    ) -> None:
        """``timers`` returns the current items' timers; ``stuck`` receives the one that ran too long."""
        self._timers = timers
        self._alive = alive
        self._stuck = stuck
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            self._alive()
            for timer in self._timers():
                if timer.runs and timer.limit is not None and timer.seconds > timer.limit + LATE:
                    self._stuck(timer)
                    return
