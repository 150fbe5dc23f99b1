"""File locks (``flock``), which the kernel releases when the last process with the descriptor exits.

Workers inherit a lock's descriptor: it stays held while one of them runs, even if the supervisor was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Self

from runner.errors import LockedError
from runner.files.storage import storage_errors
from runner.rundir.journal import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Waiting = Callable[[str], None]


# follow no link, and do not block on a pipe
_IN_PLACE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Lock:
    """A lock file that one run at a time holds."""

    def __init__(self, path: Path, mode: int = 0o644) -> None:
        """Open the file, or create it with the permissions ``mode``.

        Raises:
            StorageError: it can be neither opened nor created.

        """
        self.path = path
        with storage_errors(path):
            self.descriptor = _open(path, mode)

    def acquire(self, what: str, waiting: Waiting | None) -> None:
        """Acquire the lock; if another run holds ``what``, call ``waiting`` with a message, and wait.

        Raises:
            LockedError: another run holds it, and ``waiting`` is None.

        """
        if not _try_lock(self.descriptor):
            message = f"{what} is held by another run: {self._holder()}"
            if waiting is None:
                raise LockedError(f"{message}; --wait waits for it")
            waiting(message)
            _wait_for_lock(self.descriptor)
        with storage_errors(self.path):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, json.dumps(_self()).encode(), 0)

    @property
    def in_place(self) -> bool:
        """Whether the locked file is still the one at its path."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.descriptor))
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock, also for processes that inherited it, and keep the file open."""
        _unlock(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def _holder(self) -> str:
        # the holder writes its record right after it gets the lock
        for _ in range(20):
            holder = holder_of(self.path)
            if holder is not None:
                return in_words(holder)
            time.sleep(0.01)
        return "an unknown process"


def in_words(holder: Mapping[str, Any]) -> str:
    """A holder's process, host and start time in words."""
    return f"process {holder['pid']} on {holder['host']} since {holder['start']}"


def holder_of(path: Path) -> dict[str, Any] | None:
    """The record of the last holder: ``pid``, ``host`` and ``start``; None if there is none."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return holder if isinstance(holder, dict) and {"pid", "host", "start"} <= set(holder) else None


def held_by(path: Path) -> dict[str, Any] | None:
    """The record of the current holder, empty if it cannot be read; None if the lock is free. Read-only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _IN_PLACE)
    except OSError:
        return None
    try:
        # shared, so that two calls at once do not take each other for the holder
        is_free = _try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
    return None if is_free else holder_of(path) or {}


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": now()}


def _open(path: Path, mode: int) -> int:
    flags = os.O_RDWR | _IN_PLACE
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, mode)
        with contextlib.suppress(OSError):
            path.chmod(mode)  # despite the umask: other users share it
        return descriptor


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_lock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)
