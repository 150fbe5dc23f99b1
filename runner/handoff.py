"""Hand-offs: safetensors files that carry an item from stage to stage, sealed with a digest.

A hand-off's metadata say what it is (``key``, ``item``, ``stage``), what it is made from (``lineage``), on
what (``versions``, ``device``, ``threads``), and carry what is no tensor: ``text`` outputs and the digests
of ``files`` that lie beside it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.header import Header, HeaderError, parse_header

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGEST = "digest"
ALIGNMENT = 64  # bytes; where the data begins


class DamagedError(Exception):
    """A hand-off that cannot be trusted; it is made again."""


@dataclass(frozen=True)
class Handoff:
    """A hand-off as read: its header and the bytes of the whole file."""

    header: Header
    data: bytes

    @property
    def key(self) -> str:
        return self.header.metadata.get("key", "")

    @property
    def text(self) -> dict[str, str]:
        return self._json("text")

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """The files beside it by output name: their ``name`` and ``sha256``."""
        return self._json("files")

    @property
    def lineage(self) -> dict[str, Any]:
        """What each stage so far was made from, by stage name."""
        return self._json("lineage")

    def _json(self, entry: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.header.metadata.get(entry, "{}"))
        return value


def seal(serialized: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with metadata and the digest of all the rest; the same bytes for the same content.

    ``serialized`` is a safetensors file without metadata. (The library writes metadata in an order that
    changes from process to process.)
    """
    header = _header(serialized)
    start = 8 + int.from_bytes(serialized[:8], "little")
    tables = json.loads(serialized[8:start])
    digest = _digest(Header(header.tensors, metadata, header.size), serialized)
    tables["__metadata__"] = {**metadata, DIGEST: digest}
    text = json.dumps(tables, sort_keys=True).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + serialized[start:]


def read(path: Path, key: str | None = None) -> Handoff:
    """Read a hand-off and hold it against its digest, and against the key it should have.

    Raises:
        DamagedError: it is cut, altered, or another's.
        OSError: it cannot be read.

    """
    data = path.read_bytes()
    try:
        header = _header(data)
    except HeaderError as error:
        raise DamagedError(str(error)) from error
    found = Handoff(header, data)
    if header.size != len(data) or header.metadata.get(DIGEST) != _digest(header, data):
        raise DamagedError("its bytes are not those that were written")
    if key is not None and found.key != key:
        raise DamagedError("it belongs to another key")
    for output, file in found.files.items():
        beside = path.parent / Path(file["name"]).name
        if not beside.exists() or record_of_file(beside.name, beside.read_bytes()) != file:
            raise DamagedError(f"its file '{output}' is not the one that was written")
    return found


def record_of_file(name: str, data: bytes) -> dict[str, str]:
    """What a hand-off says of a file beside it."""
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}


def _header(data: bytes) -> Header:
    if len(data) < 8 or (length := int.from_bytes(data[:8], "little")) > len(data) - 8:
        raise HeaderError("it is cut off")
    return parse_header(data[8 : 8 + length])


def _digest(header: Header, data: bytes) -> str:
    """SHA-256 of what tells: names, types, shapes, order, metadata, and the data."""
    start = min((info.start for info in header.tensors.values()), default=len(data))
    table = {n: [i.dtype, i.shape, i.start - start] for n, i in header.tensors.items()}
    metadata = {name: value for name, value in header.metadata.items() if name != DIGEST}
    told = json.dumps([table, metadata], sort_keys=True).encode()
    hashed = hashlib.sha256(told)
    hashed.update(memoryview(data)[start:])
    return hashed.hexdigest()
