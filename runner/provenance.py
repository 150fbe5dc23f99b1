"""What a file was made from, kept in the file itself: text chunks in a PNG, else a sidecar beside it.

A file is known again by its key: that is how a run tells its own finished outputs from others.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

from runner.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
KEY_CHUNK = "runner-key"
PROVENANCE_CHUNK = "runner"
PARAMETERS_CHUNK = "parameters"
_IHDR_END = 8 + 4 + 4 + 13 + 4  # signature, then length, type, data and checksum of the first chunk
_HEAD = 1024  # bytes that hold the key's chunk, which comes first


def with_provenance(data: bytes, provenance: Mapping[str, Any]) -> bytes:
    """A PNG with its parameters, key and lineage in text chunks; any other file is returned as it is."""
    if not _is_png(data):
        return data
    parameters: dict[str, Any] = {}
    for stage in provenance["lineage"].values():
        parameters |= stage["params"]
    chunks = (
        _text_chunk(KEY_CHUNK, provenance["key"])
        + _text_chunk(PARAMETERS_CHUNK, json.dumps(parameters, ensure_ascii=False))
        + _text_chunk(PROVENANCE_CHUNK, json.dumps(provenance, ensure_ascii=False))
    )
    return data[:_IHDR_END] + chunks + data[_IHDR_END:]


def write_with_provenance(path: Path, data: bytes, provenance: Mapping[str, Any]) -> None:
    """Write an output so that :func:`is_of_key` knows it.

    Raises:
        StorageError: it cannot be written.

    """
    data = with_provenance(data, provenance)
    if not _is_png(data):
        record = {**provenance, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        write_atomically(sidecar(path), json.dumps(record, ensure_ascii=False, indent=1).encode())
    write_atomically(path, data)


def sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.runner.json")


def _is_png(data: bytes) -> bool:
    """A whole PNG with nothing behind it."""
    return data.startswith(PNG_SIGNATURE) and data.endswith(PNG_END)


def is_of_key(path: Path, key: str) -> bool:
    """Whether the file is whole, as far as its ends tell, and was made under this key."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if head[_IHDR_END:].startswith(_text_chunk(KEY_CHUNK, key)):
                file.seek(-len(PNG_END), 2)
                return file.read() == PNG_END
            size = file.seek(0, 2)
        record = json.loads(sidecar(path).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(record.get("key") == key and record.get("bytes") == size)


def _text_chunk(keyword: str, text: str) -> bytes:
    """An ``iTXt`` chunk: UTF-8, not compressed (PNG specification, 11.3.3.4)."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
