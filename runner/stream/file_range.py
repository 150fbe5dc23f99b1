"""Files of weights, which must not change while they are open, and byte ranges in them."""

from __future__ import annotations

import errno
import os
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
"""Bytes. Direct reads start at multiples of it."""


class OpenFile:
    """An open file: replacing it under its name has no effect; writing into it is detected."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ModelError: it cannot be opened.

        """
        self.path = path
        try:
            self._buffered = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from None
        weakref.finalize(self, os.close, self._buffered)
        self._direct = _direct(self._buffered)
        if self._direct is not None:
            weakref.finalize(self, os.close, self._direct)
        self._identity = self._now()

    def check(self) -> None:
        """Check that the file has not been written to since it was opened.

        Raises:
            ModelError: it has.

        """
        if self._now() != self._identity:
            raise ModelError(f"{self.path} was changed while it was in use; run again when it is complete")

    def read(self, target: memoryview, start: int, needed: int) -> None:
        """Fill ``target`` from offset ``start``, a multiple of PAGE; at least ``needed`` bytes must exist.

        Raises:
            ModelError: the file ends before that, or cannot be read.

        """
        got = 0
        direct = self._direct
        while got < needed:
            descriptor = self._buffered if direct is None else direct
            try:
                count = os.preadv(descriptor, [target[got:]], start + got)
            except OSError as error:
                if error.errno == errno.EINVAL and direct is not None:
                    direct = self._direct = None  # some network file systems refuse direct reads only here
                    continue
                raise ModelError(f"{self.path} cannot be read: {error.strerror}") from None
            if count <= 0:
                raise ModelError(f"{self.path} was cut off while it was in use; fetch it again")
            got += count
            if got % PAGE:  # a direct read from here would be refused
                direct = None

    def _now(self) -> tuple[int, int]:
        stat = os.fstat(self._buffered)
        return stat.st_size, stat.st_mtime_ns


def _direct(descriptor: int) -> int | None:
    """The same file opened again for direct reads; None if the file system does not support them."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except (OSError, AttributeError):  # tmpfs, some network file systems; systems other than Linux
        return None


@dataclass(frozen=True)
class FileRange:
    """A weight's bytes in a file."""

    file: OpenFile
    offset: int
    size: int
