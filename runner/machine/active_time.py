"""A clock that stops while this process is suspended.

``SIGSTOP``, Ctrl-Z, a batch system's suspend and a frozen container stop a process, but not the system's
clocks. A thread that reads the time often sees that as a gap in which the process used no CPU time. Code
that holds the GIL makes gaps too, but uses CPU time in them, which is counted.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from queue import SimpleQueue

T = TypeVar("T")

TICK = 0.2  # seconds between two readings
GAP = 1.0  # seconds between readings above which the process may have been suspended


class ActiveClock:
    """Counts the seconds in which the process was not suspended, from the first reading on."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._held = False
        self._ticking = False

    def seconds(self) -> float:
        """Seconds since an arbitrary moment: only differences are meaningful."""
        with self._lock:
            if not self._ticking:
                self._ticking = True
                threading.Thread(target=self._tick, name="active-time", daemon=True).start()
            self._read()
            return self._seconds

    def hold(self, held: bool) -> None:
        """Stop the clock, or let it go on: used while a process that is waited for is suspended."""
        with self._lock:
            self._read()
            self._held = held

    def _read(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        passed = wall - self._wall
        if passed > GAP:
            passed = min(passed, max(TICK, cpu - self._cpu))
        if not self._held:
            self._seconds += passed
        self._wall, self._cpu = wall, cpu

    def _tick(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                self._read()


CLOCK = ActiveClock()
"""The clock of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CLOCK._reset)  # noqa: SLF001 - a fork does not have the thread


def active_seconds() -> float:
    """Like :func:`time.monotonic`, without the time that this process was suspended."""
    return CLOCK.seconds()


def next_of(waiting: SimpleQueue[T], seconds: float | None) -> T:
    """Take the next element from a queue; ``seconds=None`` waits without end.

    Raises:
        queue.Empty: the queue was empty for so many active seconds.

    """
    deadline = None if seconds is None else active_seconds() + seconds
    while True:
        with contextlib.suppress(queue.Empty):
            return waiting.get(timeout=TICK)
        if deadline is not None and active_seconds() > deadline:
            raise queue.Empty
