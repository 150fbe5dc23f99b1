"""Ctrl-C and its kin. While a worker runs, the first asks it to stop at its next step, the second ends it."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupts:
    """Counts requests to stop for who is watching the count; raises KeyboardInterrupt for all others."""

    def __init__(self) -> None:
        self.count = 0
        self._watched = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Raise nothing for as long as this lasts: the caller looks at the count often."""
        self._watched = True
        try:
            yield
        finally:
            self._watched = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM, and survive SIGHUP, for as long as this lasts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}
        for name in ("SIGINT", "SIGTERM"):
            number = getattr(signal, name)
            before[number] = signal.signal(number, self._on_signal)
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.count += 1
        if not self._watched:
            raise KeyboardInterrupt
