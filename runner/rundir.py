"""The run directory: where everything that a run makes lies, and who may write there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from typing import TYPE_CHECKING, Any

from runner.errors import LockedError
from runner.journal import now
from runner.storage import TEMPORARY, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY_IN_NAME = 8  # hex digits of the key in an output's name


_OUTPUT = re.compile(rf".+-([0-9a-f]{{{KEY_IN_NAME}}})((?:\.[^/]*)?)")


def key_and_rest(output: str) -> tuple[str, str]:
    """What an output's name says besides the item: the first digits of its key, and label and suffix."""
    match = _OUTPUT.fullmatch(output)
    return (match[1], match[2]) if match else ("", output)


class RunDirectory:
    """``runs/<name>/`` and the names in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.toml"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    def handoff(self, stage: str, key: str) -> Path:
        return self.path / "handoff" / stage / f"{key}.safetensors"

    def handoff_file(self, stage: str, key: str, output: str, suffix: str) -> Path:
        """A file that a stage leaves for a later stage."""
        return self.path / "handoff" / stage / f"{key}.{output}{suffix}"

    def output(self, item: str, key: str, label: str, suffix: str) -> Path:
        """A file that a last stage leaves for people; ``label`` tells several apart."""
        dotted = f".{label}" if label else ""
        return self.outputs / f"{item}-{key[:KEY_IN_NAME]}{dotted}{suffix}"

    def log(self, stage: str) -> Path:
        stamp = re.sub(r"[-:]|\.\d+", "", now())
        return self.path / "logs" / f"{stamp}-{stage}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory; yields the lock's descriptor, to be passed on to workers.

        The lock is the kernel's: it is free as soon as no process that has the descriptor lives.

        Raises:
            LockedError: another run holds it.

        """
        lock = self.path / ".lock"
        with storage_errors(lock):
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(descriptor):
                raise LockedError(f"{self.path} is held by another run: {_holder(lock)}")
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(_self()).encode())
            yield descriptor
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove temporary files that a killed run left. Only for the holder of the lock."""
        for leftover in self.path.rglob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": now()}


def _holder(lock: Path) -> str:
    # the holder writes its name right after it got the lock: give it that moment
    for _ in range(20):
        try:
            holder = json.loads(lock.read_text())
        except (OSError, ValueError):
            time.sleep(0.01)
            continue
        return f"process {holder['pid']} on {holder['host']} since {holder['start']}"
    return "it has not left its name"


if os.name == "posix":
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

else:
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        # a byte far behind the text, so that others can read who holds it
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
