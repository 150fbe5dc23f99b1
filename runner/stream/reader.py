"""Reading blocks from their files: large direct reads in threads, past the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.stream.blocks import Block

CHUNK = 16 << 20
"""Bytes of one read."""
READERS = 2
"""Reads under way at a time; each has a bounce buffer of CHUNK and two pages."""
PAGE = 4096  # direct reads start and end at multiples of it
GAP = 1 << 20  # what lies between two weights is read along if it is less


@dataclass(frozen=True)
class _Read:
    """One read: ``length`` bytes at ``start`` in a file (aligned), and where parts of it go."""

    file: Path
    start: int
    length: int
    needed: int
    """Bytes that must come; the rest may lie behind the file's end."""
    copies: Sequence[tuple[int, int, int]]
    """Offset in what was read, offset in the slot, bytes."""


class Reader:
    """Reads blocks into memory; counts the bytes of weights that it has read."""

    def __init__(self) -> None:
        self._files: dict[Path, _File] = {}
        self._plans: dict[Block, list[_Read]] = {}
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._local = threading.local()
        self.bytes_read = 0

    def read(self, block: Block, target: int) -> None:
        """Read a block's weights to the memory at address ``target``.

        Raises:
            ModelError: a file was changed or cut since it was opened, or cannot be read.

        """
        if block not in self._plans:
            self._plans[block] = _plan(block)
        reads = self._plans[block]
        for file in {read.file for read in reads}:
            if file not in self._files:
                self._files[file] = _File(file)
            self._files[file].check()
        for done in [self._pool.submit(self._read, read, target) for read in reads]:
            done.result()
        self.bytes_read += sum(weight.place.size for weight in block.weights)

    def _read(self, read: _Read, target: int) -> None:
        bounce = self._bounce()
        self._files[read.file].read(memoryview(bounce)[: read.length], read.start, read.needed)
        base = ctypes.addressof(ctypes.c_char.from_buffer(bounce))
        for from_, to, size in read.copies:
            ctypes.memmove(target + to, base + from_, size)  # releases the interpreter's lock

    def _bounce(self) -> mmap.mmap:
        if not hasattr(self._local, "bounce"):
            self._local.bounce = mmap.mmap(-1, CHUNK + 2 * PAGE)  # page-aligned, as direct reads ask
        bounce: mmap.mmap = self._local.bounce
        return bounce


class _File:
    """An open file that is to stay as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
        except OSError:  # tmpfs and some network file systems have no direct reads
            self._descriptor = self._open_buffered()
        self._identity = self._now()

    def check(self) -> None:
        """Raise ModelError if the file was written to."""
        if self._now() != self._identity:
            raise ModelError(f"{self._path} was changed while it was in use; run again when it is whole")

    def read(self, target: memoryview, start: int, needed: int) -> None:
        """Fill ``target`` from ``start``; at least ``needed`` bytes must be there."""
        got = 0
        while got < needed:
            try:
                count = os.preadv(self._descriptor, [target[got:]], start + got)
            except OSError as error:
                raise ModelError(f"{self._path} cannot be read: {error.strerror}") from None
            if count <= 0:
                raise ModelError(f"{self._path} was cut off while it was in use; fetch it again")
            got += count
            if got < needed and got % PAGE:  # a short read: direct ones go on at multiples of a page alone
                got -= got % PAGE

    def _now(self) -> tuple[int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    def _open_buffered(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise ModelError(f"{self._path} cannot be read: {error.strerror}") from None


def _plan(block: Block) -> list[_Read]:
    """A block's reads: stretches of its files in chunks, at boundaries of pages."""
    weights = sorted(block.weights, key=lambda w: (str(w.place.file), w.place.offset))
    stretches: list[tuple[Path, int, int]] = []
    for weight in weights:
        place = weight.place
        end = place.offset + place.size
        if stretches and stretches[-1][0] == place.file and place.offset - stretches[-1][2] < GAP:
            stretches[-1] = (place.file, stretches[-1][1], max(end, stretches[-1][2]))
        else:
            stretches.append((place.file, place.offset, end))
    reads = []
    for file, first, last in stretches:
        for at in range(first - first % PAGE, last, CHUNK):
            until = min(at + CHUNK, last)
            copies = [
                (max(at, w.place.offset) - at, w.offset + max(0, at - w.place.offset), size)
                for w in weights
                if w.place.file == file
                for size in [min(until, w.place.offset + w.place.size) - max(at, w.place.offset)]
                if size > 0
            ]
            length = -(-(until - at) // PAGE) * PAGE
            reads.append(_Read(file, at, length, until - at, copies))
    return reads
