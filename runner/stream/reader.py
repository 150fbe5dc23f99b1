"""Reading blocks from their files: large direct reads in threads, past the page cache."""

from __future__ import annotations

import ctypes
import mmap
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.protocol import STREAM_CHUNK as CHUNK
from runner.protocol import STREAM_READERS as READERS
from runner.stream.file_range import PAGE, OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.stream.blocks import Block

GAP = 1 << 20  # what lies between two weights is read along if it is less


@dataclass(frozen=True)
class _Read:
    """One read: ``length`` bytes at ``start`` in a file (aligned), and where parts of it go."""

    file: OpenFile
    start: int
    length: int
    needed: int
    """Bytes that must come; the rest may lie behind the file's end."""
    copies: Sequence[tuple[int, int, int]]
    """Offset in what was read, offset in the slot, bytes."""


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
            wait(helpers)  # whatever happened: nothing may write to the target after this returns
        for helper in helpers:
            helper.result()
        for file in {read.file for read in reads}:
            file.check()

    def _read_all(self, left: Iterator[_Read], target: int) -> None:
        """Take one read after another, as other threads do."""
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
            self._local.bounce = mmap.mmap(-1, CHUNK)  # page-aligned, as direct reads ask
        bounce: mmap.mmap = self._local.bounce
        return bounce


def _plan(block: Block) -> list[_Read]:
    """A block's reads: stretches of its files in chunks, at boundaries of pages."""
    weights = sorted(block.weights, key=lambda w: (str(w.place.file.path), w.place.offset))
    stretches: list[tuple[OpenFile, int, int]] = []
    for weight in weights:
        place = weight.place
        end = place.offset + place.size
        if stretches and stretches[-1][0] is place.file and place.offset - stretches[-1][2] < GAP:
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
                if w.place.file is file
                for size in [min(until, w.place.offset + w.place.size) - max(at, w.place.offset)]
                if size > 0
            ]
            length = -(-(until - at) // PAGE) * PAGE
            reads.append(_Read(file, at, length, until - at, copies))
    return reads
