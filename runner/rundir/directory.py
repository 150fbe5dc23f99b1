"""The run directory: the paths of all files of a run, and its lock."""

from __future__ import annotations

import contextlib
import re
import shutil
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.files.storage import TEMPORARY, refuse_linked_folders, storage_errors
from runner.rundir.journal import now
from runner.rundir.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.rundir.lock import Waiting

SHARED_WORD = ".shared-"
"""Prefix of probe files, by which other machines find out whether they share the run directory."""
KEY_IN_NAME = 8  # hex digits of the key in an output's name


_OUTPUT = re.compile(rf".+-([0-9a-f]{{{KEY_IN_NAME}}})((?:\.[^/]*)?)")


def key_and_rest(output: str) -> tuple[str, str]:
    """Of an output's file name: the key's first digits, and label and suffix; ("", name) if invalid."""
    match = _OUTPUT.fullmatch(output)
    return (match[1], match[2]) if match else ("", output)


class RunDirectory:
    """``runs/<name>/``, and the paths in it."""

    def __init__(self, path: Path, node: str = "") -> None:
        """``node`` is the name of the agent that writes it, for names of logs; empty for the run itself."""
        self.path = path
        self._node = node
        self.outputs = path / "outputs"
        self._lock: Lock | None = None

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.toml"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def handoff(self, stage: str, key: str) -> Path:
        return self.path / "handoff" / stage / f"{key}.safetensors"

    def state(self, stage: str, key: str) -> Path:
        """The saved state of an interrupted item."""
        return self.path / "state" / stage / f"{key}.safetensors"

    def states(self, stage: str) -> Iterator[Path]:
        """The saved states of a stage; the stem of each file's name is its key."""
        return (self.path / "state" / stage).glob("*.safetensors")

    def handoff_file(self, stage: str, key: str, output: str, suffix: str) -> Path:
        """A file output of a stage that a later stage reads."""
        return self.path / "handoff" / stage / f"{key}.{output}{suffix}"

    def output(self, item: str, key: str, label: str, suffix: str) -> Path:
        """A file output of a terminal stage; ``label`` distinguishes several with the same suffix."""
        dotted = f".{label}" if label else ""
        return self.outputs / f"{item}-{key[:KEY_IN_NAME]}{dotted}{suffix}"

    def log(self, stage: str) -> Path:
        stamp = re.sub(r"[-:]|\.\d+", "", now())
        node = f"-{self._node}" if self._node else ""
        return self.path / "logs" / f"{stamp}-{stage}{node}.log"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @contextlib.contextmanager
    def locked(self, waiting: Waiting | None = None) -> Iterator[int]:
        """Lock the directory; yields the lock's descriptor, for workers to inherit.

        If another run holds it, call ``waiting`` with a message that names the holder, and wait.

        Raises:
            LockedError: another run holds it, and ``waiting`` is None.
            StorageError: it cannot be written, or a folder in it is a symbolic link.

        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with Lock(self.lock) as lock:
            lock.acquire(str(self.path), waiting)
            refuse_linked_folders(self.path)
            self._lock = lock
            yield lock.descriptor

    def check_held(self) -> None:
        """Check that the directory at the path is still the one that was locked.

        Raises:
            StorageError: it was removed or moved away.

        """
        if self._lock is None or not self._lock.in_place:
            raise StorageError(
                f"{self.path} was removed or moved away under the run, or the {self.lock.name} in it was; "
                "run again to make what is missing"
            )

    @property
    def incoming(self) -> Path:
        """What other machines send, until it is checked."""
        return self.path / ".incoming"

    def sweep(self) -> None:
        """Remove temporary files that killed processes left. Only for the holder of the lock."""
        shutil.rmtree(self.incoming, ignore_errors=True)
        for word in self.path.glob(f"{SHARED_WORD}*"):
            with contextlib.suppress(OSError):
                word.unlink()
        for leftover in self.path.rglob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                leftover.unlink()
