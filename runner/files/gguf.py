"""Reads and checks headers of GGUF files, without torch and without reading weights.

The format: magic, version, numbers of tensors and of metadata entries, the entries, a description of each
tensor, then the data, aligned. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from runner.files.header import HEADER_LIMIT, NUMBER_LIMIT, Header, HeaderError, TensorInfo, UnreadFormatError
from runner.files.storage import open_to_read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
FIRST = 1 << 16  # bytes that are read at first: most headers of image models are shorter
PLAIN = {"F32": 4, "F16": 2}
"""Types that torch has, and their bytes."""
BF16 = "GGML BF16"  # beside safetensors' BF16, which torch computes with as it is
DIMENSIONS = 8  # GGML has 4; files of video models have convolutions with 5
ALIGNMENT = 32  # bytes, if the file has no ``general.alignment``


@dataclass(frozen=True)
class BlockFormat:
    """A quantised type: ``size`` bytes hold ``elements`` numbers of a row."""

    name: str
    elements: int
    size: int


# https://github.com/ggml-org/ggml/blob/master/include/ggml.h, enum ggml_type, and ggml-common.h for sizes
TYPES = {
    0: BlockFormat("F32", 1, 4),
    1: BlockFormat("F16", 1, 2),
    2: BlockFormat("Q4_0", 32, 18),
    3: BlockFormat("Q4_1", 32, 20),
    6: BlockFormat("Q5_0", 32, 22),
    7: BlockFormat("Q5_1", 32, 24),
    8: BlockFormat("Q8_0", 32, 34),
    10: BlockFormat("Q2_K", 256, 84),
    11: BlockFormat("Q3_K", 256, 110),
    12: BlockFormat("Q4_K", 256, 144),
    13: BlockFormat("Q5_K", 256, 176),
    14: BlockFormat("Q6_K", 256, 210),
    20: BlockFormat("IQ4_NL", 32, 18),
    23: BlockFormat("IQ4_XS", 256, 136),
    30: BlockFormat(BF16, 1, 2),
}
"""The types that diffusers dequantises, by their numbers in files."""
FORMATS = {one.name: one for one in TYPES.values()}
NUMBERS = {one.name: number for number, one in TYPES.items()}
UNREAD = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S"} | {
    22: "IQ2_S",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}

_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NESTED = 4  # arrays in arrays; no file has more than one


class IncompleteError(HeaderError):
    """The bytes end before the header does; more of the file may have the rest."""


def read_gguf(path: Path) -> Header:
    """Read and check a header against the file's size.

    Raises:
        HeaderError: it is cut off, damaged, or not a GGUF file.
        UnreadFormatError: it has a type that is not supported here.
        OSError: it cannot be read.

    """
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(FIRST)
        while True:
            try:
                return parse_gguf(head, size)
            except IncompleteError:
                if not (more := file.read(len(head))):
                    raise
                head += more


def parse_gguf(head: bytes, size: int) -> Header:
    """Parse the header at the start of a file of ``size`` bytes.

    Raises:
        IncompleteError: ``head`` ends before the header.
        HeaderError: it violates the format.

    """
    if head[:4] != MAGIC:
        raise HeaderError("it is no GGUF file: it does not begin with GGUF")
    cursor = _Cursor(head, size)
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = "its numbers are big-endian" if swapped in VERSIONS else f"its version of GGUF is {version}"
        raise UnreadFormatError(f"{what}, and versions 2 and 3 are read, little-endian: get another file")
    tensors, entries = cursor.count(), cursor.count()
    metadata = dict(_entry(cursor) for _ in range(entries))
    described = [_described(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > HEADER_LIMIT:
        raise HeaderError(f"its header is damaged: the alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    found: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in described:
        if name in found:
            raise HeaderError("its header is damaged: it names something twice")
        if offset % alignment:
            raise HeaderError(f"its header is damaged: {name[:80]!r} is not aligned")
        found[name] = TensorInfo(kind.name, shape, start + offset, start + offset + _size(name, shape, kind))
    _check_extents(found, start, alignment, size)
    texts = {name: value for name, value in metadata.items() if isinstance(value, str)}
    return Header(found, texts, size)


def _entry(cursor: _Cursor) -> tuple[str, Any]:
    return cursor.text(), cursor.value(cursor.number("I"))


def _described(cursor: _Cursor) -> tuple[str, tuple[int, ...], BlockFormat, int]:
    """Name, shape, type and offset of a tensor; the shape as torch has it, rows before columns."""
    name = cursor.text()
    dimensions = cursor.number("I")
    if dimensions > DIMENSIONS:
        raise HeaderError(f"its header is damaged: {name[:80]!r} has {dimensions} dimensions")
    shape = tuple(reversed([cursor.number("Q") for _ in range(dimensions)]))
    number = cursor.number("I")
    offset = cursor.number("Q")
    if number not in TYPES:
        known = UNREAD.get(number, f"type {number}")
        raise UnreadFormatError(
            f"it holds {name[:80]!r} as {known}, which diffusers does not read: get another quantisation"
        )
    return name, shape, TYPES[number], offset


def _size(name: str, shape: tuple[int, ...], kind: BlockFormat) -> int:
    """Bytes of a tensor."""
    elements = prod(shape)
    if max(shape, default=0) >= NUMBER_LIMIT or elements >= NUMBER_LIMIT:
        raise HeaderError(f"its header is damaged: {name[:80]!r} is too large")
    if (shape[-1] if shape else 1) % kind.elements:
        raise HeaderError(
            f"its header is damaged: rows of {name[:80]!r} are no whole blocks of {kind.elements} numbers"
        )
    return elements // kind.elements * kind.size


def _check_extents(tensors: Mapping[str, TensorInfo], start: int, alignment: int, size: int) -> None:
    end = start
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start < end:
            raise HeaderError("its header is damaged: tensors overlap")
        if info.start >= end + alignment:
            raise HeaderError("its header is damaged: tensors leave gaps")
        end = info.end
    if tensors and not end <= size < end + alignment:
        what = "cut off" if end > size else "longer than its header says"
        raise HeaderError(f"it is {what}: {size} bytes where the header counts {end}")


class _Cursor:
    """Reads a header's values one after the other."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head, self._size = head, size
        self.at = len(MAGIC)

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self._take(struct.calcsize("<" + kind)))[0]

    def count(self) -> int:
        """A count of elements; each takes at least one byte, so more than the bytes left is damage."""
        count = int(self.number("Q"))
        if count > self._left:
            raise HeaderError("its header is damaged: it counts more than the file has room for")
        return count

    def text(self) -> str:
        try:
            return self._take(self.count()).decode()
        except UnicodeDecodeError:
            raise HeaderError("its header is damaged: a name is no text") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        """A metadata value; arrays are skipped, since nothing here needs one."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._skip_array(depth)
        if kind not in _VALUES:
            raise HeaderError(f"its header is damaged: there is no kind {kind} of metadata")
        return self.number(_VALUES[kind])

    def _skip_array(self, depth: int) -> None:
        kind, count = self.number("I"), self.count()
        if depth == _NESTED:
            raise HeaderError("its header is damaged: arrays in arrays")
        if kind in _VALUES:
            self._take(count * struct.calcsize("<" + _VALUES[kind]))
            return
        for _ in range(count):
            self.value(kind, depth + 1)

    @property
    def _left(self) -> int:
        return min(self._size, HEADER_LIMIT) - self.at

    def _take(self, length: int) -> bytes:
        if length > self._left:
            if self._size > HEADER_LIMIT:
                raise HeaderError(f"its header is longer than {HEADER_LIMIT} bytes, which none needs")
            raise HeaderError("its header reaches past its end: cut off, or no GGUF file")
        self.at += length
        if self.at > len(self._head):
            raise IncompleteError("its header is cut off")
        return self._head[self.at - length : self.at]
