"""Headers of safetensors files, read without torch and without a byte of the weights.

The format: 8 bytes with the header's length (little endian), the header (JSON: a table a tensor with
``dtype``, ``shape`` and ``data_offsets``, and ``__metadata__``), then the data without gaps.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HEADER_LIMIT = 100_000_000  # bytes; the format's own limit

DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}


class HeaderError(ValueError):
    """The file is no whole safetensors file; the message says what is wrong with it."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file: ``dtype`` as the format names it, ``start`` and ``end`` as offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size: int
    """Bytes of the whole file."""


def read_header(path: Path) -> Header:
    """Read and check a header against the file's size.

    Raises:
        HeaderError: it is cut off, damaged or no safetensors file at all.
        OSError: it cannot be read.

    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise HeaderError(f"it is {size} bytes long, too short for a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(HEADER_LIMIT, size - 8):
            raise HeaderError("its header reaches past its end: cut off, or no safetensors file")
        raw = file.read(length)
    header = parse_header(raw)
    end = max((info.end for info in header.tensors.values()), default=8 + length)
    if end != size:
        what = "cut off" if end > size else "longer than its header says"
        raise HeaderError(f"it is {what}: {size} bytes where the header counts {end}")
    return header


def parse_header(raw: bytes) -> Header:
    """Parse a header's JSON; offsets are moved to count from the start of the file.

    Raises:
        HeaderError: it is not what the format says.

    """
    try:
        tables = json.loads(raw)
    except (ValueError, RecursionError):
        raise HeaderError("its header is damaged: not JSON") from None
    if not isinstance(tables, dict):
        raise HeaderError("its header is damaged: not a table")
    metadata = tables.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HeaderError("its header is damaged: metadata must be strings")
    base = 8 + len(raw)
    tensors = {name: _tensor(name, table, base) for name, table in tables.items()}
    expected = base
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != expected:
            raise HeaderError("its header is damaged: tensors overlap or leave gaps")
        expected = info.end
    return Header(tensors, metadata, expected)


def _tensor(name: str, table: Any, base: int) -> TensorInfo:
    try:
        dtype, shape, (start, end) = table["dtype"], tuple(table["shape"]), table["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
        size = prod(shape) * DTYPE_BITS[dtype] // 8 if whole else -1
    except (KeyError, TypeError, ValueError):
        size, start, end = -1, 0, 0
    if size < 0 or end - start != size:
        raise HeaderError(f"its header is damaged: the entry of '{name[:80]}' does not fit its type")
    return TensorInfo(dtype, shape, base + start, base + end)
