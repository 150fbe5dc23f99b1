"""A clock that stands still while this process is suspended.

``SIGSTOP``, Ctrl-Z, a batch system's suspend and a frozen container stop a process; the system's clocks go
on. A thread that reads the time often sees that as a gap in which the process used no processor time either.
Code that lets no other thread run makes gaps too, but computes in them: that is counted.
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
GAP = 1.0  # seconds without a reading, from which on they are looked into: a busy machine makes short ones


class ActiveClock:
    """Seconds in which the process was not suspended. It ticks from its first reading on."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._held = False
        self._ticking = False

    def seconds(self) -> float:
        """Seconds since some moment; only differences mean something."""
        with self._lock:
            if not self._ticking:
                self._ticking = True
                threading.Thread(target=self._tick, name="active-time", daemon=True).start()
            self._read()
            return self._seconds

    def hold(self, held: bool) -> None:
        """Stand still, or go on: for who waits for another process that is suspended."""
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
"""Of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CLOCK._reset)  # noqa: SLF001 - a fork has no threads but its own


def active_seconds() -> float:
    """Seconds that this process was not suspended, as :func:`time.monotonic` counts all."""
    return CLOCK.seconds()


def next_of(waiting: SimpleQueue[T], seconds: float | None) -> T:
    """Take the next thing out of a queue; None for ``seconds`` waits for ever.

    Raises:
        queue.Empty: nothing came in so many active seconds.

    """
    deadline = None if seconds is None else active_seconds() + seconds
    while True:
        with contextlib.suppress(queue.Empty):
            return waiting.get(timeout=TICK)
        if deadline is not None and active_seconds() > deadline:
            raise queue.Empty
