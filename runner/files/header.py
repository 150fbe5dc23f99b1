"""Reads and checks headers of safetensors files, without torch and without reading weights.

The format: 8 bytes with the header's length (little endian), the header (JSON: a table a tensor with
``dtype``, ``shape`` and ``data_offsets``, and ``__metadata__``), then the data without gaps.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from runner.files.storage import open_to_read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# bytes; the format allows 100 MB, which no model comes near (a tensor's entry takes about 100), and which
# could take gigabytes of memory when parsed
HEADER_LIMIT = 16 << 20
NUMBER_LIMIT = 1 << 63  # of a dimension, an offset, a size

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
    """The file is not a complete safetensors file; the message says what is wrong."""


class UnreadFormatError(HeaderError):
    """The file seems complete, but is of a kind, or has a dtype, that is not read here."""


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


def tensors_to_json(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Tensors as JSON data, for other processes and caches."""
    return {n: [info.dtype, list(info.shape), [info.start, info.end]] for n, info in tensors.items()}


def tensors_from_json(values: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Tensors of what :func:`tensors_to_json` returns."""
    return {n: TensorInfo(dtype, tuple(shape), *extent) for n, (dtype, shape, extent) in values.items()}


@dataclass(frozen=True)
class Header:
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size: int
    """Bytes of the whole file."""


def read_header(path: Path) -> Header:
    """Read and check a header against the file's size.

    Raises:
        HeaderError: it is cut off, damaged, or not a safetensors file.
        UnreadFormatError: it has a dtype that is not supported here.
        OSError: it cannot be read.

    """
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        raw = file.read(header_length(file.read(8), size))
    header = parse_header(raw)
    check_size(header, size)
    return header


def header_length(start: bytes, size: int | None) -> int:
    """Bytes of the header, from a file's first 8 bytes and, if known, its size.

    Raises:
        HeaderError: it does not fit into the file.

    """
    if len(start) < 8:
        raise HeaderError(f"it is {len(start)} bytes long, too short for a safetensors file")
    (length,) = struct.unpack("<Q", start[:8])
    if length > HEADER_LIMIT and (foreign := _foreign(start)):
        raise UnreadFormatError(foreign)
    if size is not None and length > size - 8:
        raise HeaderError("its header reaches past its end: cut off, or no safetensors file")
    if length > HEADER_LIMIT:
        raise HeaderError(f"its header is {length} bytes long, and none needs more than {HEADER_LIMIT}")
    return int(length)


def _foreign(start: bytes) -> str:
    """A message about a file of another format with the name of this one; empty for an unknown one."""
    if start.startswith(b"GGUF"):
        return "it is a GGUF file: rename it, so that its name ends in .gguf"
    if start.startswith((b"PK", b"\x80")):
        return "it is pickled, and can run code when it is loaded: get it as safetensors"
    return ""


def check_size(header: Header, size: int) -> None:
    """Check that a file is as long as its header says.

    Raises:
        HeaderError: it is not.

    """
    if header.size != size:
        what = "cut off" if header.size > size else "longer than its header says"
        raise HeaderError(f"it is {what}: {size} bytes where the header counts {header.size}")


def parse_header(raw: bytes) -> Header:
    """Parse a header's JSON; offsets are converted to count from the start of the file.

    Raises:
        HeaderError: it violates the format.

    """
    try:
        # decoded first: from bytes, Python would accept UTF-16 and lone surrogates too
        tables = json.loads(raw.decode(), object_pairs_hook=_table, parse_constant=_refused)
    except HeaderError:
        raise
    except (ValueError, RecursionError):
        raise HeaderError("its header is damaged: not JSON") from None
    if not isinstance(tables, dict):
        raise HeaderError("its header is damaged: not a table")
    metadata = tables.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HeaderError("its header is damaged: metadata must be strings")
    base = 8 + len(raw)
    tensors = {name: _tensor(name, table, base) for name, table in tables.items()}
    try:
        "".join((*tensors, *metadata, *metadata.values())).encode()
    except UnicodeEncodeError:
        raise HeaderError("its header is damaged: it holds half a character, which is no text") from None
    expected = base
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != expected:
            raise HeaderError("its header is damaged: tensors overlap or leave gaps")
        expected = info.end
    return Header(tensors, metadata, expected)


def _tensor(name: str, table: Any, base: int) -> TensorInfo:
    try:
        dtype, dimensions, (start, end) = table["dtype"], table["shape"], table["data_offsets"]
        shape = tuple(dimensions)
        whole = len(table) == 3 and isinstance(dimensions, list) and isinstance(dtype, str)
        whole = whole and all(type(n) is int and 0 <= n < NUMBER_LIMIT for n in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if whole and dtype not in DTYPE_BITS:
        raise UnreadFormatError(
            f"it holds {name[:80]!r} as {dtype[:20]!r}, which is not read here: get it in another precision"
        )
    size = _size(shape, DTYPE_BITS[dtype]) if whole else None
    if size is None or end - start != size:
        raise HeaderError(f"its header is damaged: the entry of {name[:80]!r} does not fit its type")
    return TensorInfo(dtype, shape, base + start, base + end)


def _size(shape: tuple[int, ...], bits: int) -> int | None:
    """Bytes of a tensor; None if a partial product exceeds the limit, as in the safetensors library."""
    elements = 1
    for dimension in shape:
        elements *= dimension
        if elements * bits >= NUMBER_LIMIT:
            return None
    return elements * bits // 8


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise HeaderError("its header is damaged: it names something twice")
    return table


def _refused(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity: Python's json accepts them, JSON does not
