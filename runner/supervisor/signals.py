"""Signals: Ctrl-C (SIGINT), SIGTERM, SIGHUP and Ctrl-Z (SIGTSTP).

The first SIGINT or SIGTERM asks a running worker to stop after its current step, the second kills it. Ctrl-Z
suspends the worker too, which has a process group of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupts:
    """Counts SIGINT and SIGTERM; raises KeyboardInterrupt outside of ``watched()``."""

    def __init__(self) -> None:
        self.count = 0
        self._is_watched = False
        self._worker: int | None = None

    @contextlib.contextmanager
    def watched(self, worker: int | None = None) -> Iterator[None]:
        """Do not raise inside: the caller polls the count, and may supervise a worker (a process id)."""
        self._is_watched, self._worker = True, worker
        try:
            yield
        finally:
            self._is_watched, self._worker = False, None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGTSTP, and ignore SIGHUP inside; no effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}
        for name in ("SIGINT", "SIGTERM"):
            number = getattr(signal, name)
            before[number] = signal.signal(number, self._on_signal)
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._on_suspend)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.count += 1
        if not self._is_watched:
            raise KeyboardInterrupt

    def _on_suspend(self, number: int, _frame: object) -> None:
        """Suspend the worker and this process; resume the worker when this process is resumed."""
        worker = self._worker
        self._signal_worker(worker, signal.SIGSTOP)
        handler = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # returns when this process is resumed
        signal.signal(number, handler)
        self._signal_worker(worker, signal.SIGCONT)

    @staticmethod
    def _signal_worker(worker: int | None, number: int) -> None:
        if worker is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker, number)
