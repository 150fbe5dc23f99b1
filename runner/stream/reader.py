"""Reads blocks from their files with large direct reads in threads, which bypass the page cache."""

from __future__ import annotations

import ctypes
import mmap
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.placements import STREAM_CHUNK as CHUNK
from runner.placements import STREAM_READERS as READERS
from runner.stream.file_range import PAGE, OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runner.stream.blocks import Block, Part

GAP = 1 << 20  # bytes; a smaller gap between two weights is read, too


@dataclass(frozen=True)
class _Read:
    """One read: ``length`` bytes at ``start`` in a file (both multiples of PAGE), and the copies to make."""

    file: OpenFile
    start: int
    length: int
    needed: int
    """Bytes that must be read; the rest may be beyond the file's end."""
    copies: Sequence[tuple[int, int, int]]
    """Of each part: its offset in this read, its offset in the slot, its bytes."""


class Reader:
    """Reads blocks into memory."""

    def __init__(self) -> None:
        self._plans: dict[Block, list[_Read]] = {}
        self._pool = ThreadPoolExecutor(READERS - 1, thread_name_prefix="reader")
        self._local = threading.local()

    def read(self, block: Block, target: int) -> None:
        """Read a block's weights to the memory at address ``target``.

        Raises:
            ModelError: a file was changed or cut since it was opened, or cannot be read.

        """
        if block not in self._plans:
            self._plans[block] = _plan(block)
        reads = self._plans[block]
        left = iter(reads)
        helpers = [self._pool.submit(self._read_all, left, target) for _ in reads[1:READERS]]
        try:
            self._read_all(left, target)
        finally:
            wait(helpers)  # even after an error: nothing may write to the target after this returns
        for helper in helpers:
            helper.result()
        for file in {read.file for read in reads}:
            file.check()

    def _read_all(self, left: Iterator[_Read], target: int) -> None:
        """Take reads from the shared iterator until none is left."""
        for read in left:
            self._read(read, target)

    def _read(self, read: _Read, target: int) -> None:
        bounce = self._bounce()
        read.file.read(memoryview(bounce)[: read.length], read.start, read.needed)
        base = ctypes.addressof(ctypes.c_char.from_buffer(bounce))
        for from_, to, size in read.copies:
            ctypes.memmove(target + to, base + from_, size)  # releases the interpreter's lock

    def _bounce(self) -> mmap.mmap:
        if not hasattr(self._local, "bounce"):
            self._local.bounce = mmap.mmap(-1, CHUNK)  # page-aligned, as direct reads require
        bounce: mmap.mmap = self._local.bounce
        return bounce


def _plan(block: Block) -> list[_Read]:
    """A block's reads: contiguous stretches of its files, cut into chunks at page boundaries."""
    parts = sorted(block.parts.values(), key=lambda p: (str(p.range.file.path), p.range.offset))
    stretches: list[tuple[OpenFile, int, int]] = []
    for part in parts:
        range_ = part.range
        end = range_.offset + range_.size
        if stretches and stretches[-1][0] is range_.file and range_.offset - stretches[-1][2] < GAP:
            stretches[-1] = (range_.file, stretches[-1][1], max(end, stretches[-1][2]))
        else:
            stretches.append((range_.file, range_.offset, end))
    reads = []
    for file, first, last in stretches:
        for at in range(first - first % PAGE, last, CHUNK):
            until = min(at + CHUNK, last)
            length = -(-(until - at) // PAGE) * PAGE
            copies = list(_copies([p for p in parts if p.range.file is file], at, until))
            reads.append(_Read(file, at, length, until - at, copies))
    return reads


def _copies(parts: Iterable[Part], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The copies, as in :class:`_Read`, of what lies of tensors between two offsets in their file."""
    for part in parts:
        first = max(start, part.range.offset)
        size = min(end, part.range.offset + part.range.size) - first
        if size > 0:
            yield first - start, part.offset + first - part.range.offset, size
