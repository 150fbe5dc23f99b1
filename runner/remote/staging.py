"""Files that come in pieces: each is written aside, under a path that the receiver computed, then checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.files.storage import storage_errors
from runner.remote.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.remote.messages import Piece

FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,250}")
"""Of a file that travels: it names no folder, and is not hidden."""


@dataclass
class _Incoming:
    file: Any
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0


class Staging:
    """A folder with the layout of a run directory, for the files of one sender until they are checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Path, _Incoming] = {}

    def write(self, path: Path, piece: Piece, data: bytes) -> bool:
        """Write a piece to ``path``, relative to the folder; returns whether the file is complete.

        Raises:
            WireError: it does not follow the piece before, or the content is not what was sent.
            StorageError: it cannot be written.

        """
        target = self.folder / path
        with storage_errors(target):
            if piece.offset == 0:
                self._discard(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                self._open[path] = _Incoming(target.open("xb"))
            incoming = self._open.get(path)
            if incoming is None or incoming.size != piece.offset:
                raise WireError(f"a piece of {path.name} is missing")
            incoming.file.write(data)
            incoming.digest.update(data)
            incoming.size += len(data)
            if piece.sha256 is None:
                return False
            incoming.file.flush()
            os.fsync(incoming.file.fileno())
            self._discard(path)
        if incoming.digest.hexdigest() != piece.sha256:
            with contextlib.suppress(OSError):
                target.unlink()
            raise WireError(f"{path.name} is not what was sent")
        return True

    def place(self, paths: Iterable[Path], root: Path) -> None:
        """Give files that were checked their places under ``root``.

        Raises:
            StorageError: one cannot be written.

        """
        for path in paths:
            target = root / path
            with storage_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).replace(target)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove what came of these files."""
        for path in paths:
            self._discard(path)
            with contextlib.suppress(OSError):
                (self.folder / path).unlink()

    def close(self) -> None:
        for path in list(self._open):
            self._discard(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _discard(self, path: Path) -> None:
        incoming = self._open.pop(path, None)
        if incoming is not None:
            incoming.file.close()
