"""What a file was made from, kept in the file itself: text chunks in a PNG, else a sidecar beside it.

A run recognises its finished outputs by the key in this record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from runner.files.storage import open_to_read, read_ends, read_regular, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
KEY_CHUNK = "runner-key"
PROVENANCE_CHUNK = "runner"
PARAMETERS_CHUNK = "parameters"
_TEXT_CHUNKS = (b"iTXt", b"tEXt", b"zTXt")  # we write the first; image editors may save it as another
_TEXT_LIMIT = 64 << 20  # bytes
SIDECAR_SUFFIX = ".runner.json"
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
    """Write an output with its record, by which :func:`has_key` recognises it.

    Raises:
        StorageError: it cannot be written.

    """
    data = with_provenance(data, provenance)
    if not _is_png(data):
        record = {**provenance, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        write_atomically(sidecar(path), json.dumps(record, ensure_ascii=False).encode())
    write_atomically(path, data)


def sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}{SIDECAR_SUFFIX}")


def _sidecar_bytes(path: Path) -> bytes:
    return read_regular(sidecar(path))


def _is_png(data: bytes) -> bool:
    """Whether it is a complete PNG with nothing after its end."""
    return data.startswith(PNG_SIGNATURE) and data.endswith(PNG_END)


def has_key(path: Path, key: str) -> bool:
    """Whether the file is complete, judging by its beginning and end, and was made under this key.

    A run checks each of its outputs with it, so it makes few system calls.
    """
    try:
        head, size, end = read_ends(path, _HEAD, len(PNG_END))
        if head[_IHDR_END:].startswith(_text_chunk(KEY_CHUNK, key)):
            return end == PNG_END
        record = json.loads(_sidecar_bytes(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("key") == key and record.get("bytes") == size


def is_whole(path: Path, key: str) -> bool:
    """As :func:`has_key`, and whether all of the content is as it was written.

    That is found by the digest in the record beside the file, else by the checksums of a PNG's chunks.
    """
    if not has_key(path, key):
        return False
    try:
        with open_to_read(path) as file:
            if not sidecar(path).exists():
                return _checksums_are_right(file)
            record = json.loads(_sidecar_bytes(path))
            return bool(record["sha256"] == hashlib.file_digest(file, "sha256").hexdigest())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _checksums_are_right(file: BinaryIO) -> bool:
    """Whether it is a PNG, and every chunk has the checksum of its content (PNG specification, 5.3)."""
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        return False
    while length := file.read(4):
        chunk, checksum = file.read(4 + int.from_bytes(length)), file.read(4)
        if checksum != struct.pack(">I", zlib.crc32(chunk)):
            return False
    return True


def read_provenance(path: Path) -> dict[str, Any] | None:
    """The record of an output; None for a file that has none, in itself or beside it.

    Raises:
        OSError: the file cannot be read.

    """
    with open_to_read(path) as file:
        text = next((text for name, text in _texts(file) if name == PROVENANCE_CHUNK), None)
    try:
        record = json.loads(_sidecar_bytes(path) if text is None else text)
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def without_provenance(data: bytes) -> bytes:
    """A file as the stage made it: a PNG less the chunks that :func:`with_provenance` added."""
    if not _is_png(data):
        return data
    start = end = _IHDR_END
    for keyword in (KEY_CHUNK, PARAMETERS_CHUNK, PROVENANCE_CHUNK):
        if data.startswith(b"iTXt" + keyword.encode() + b"\0", end + 4):
            end += 12 + int.from_bytes(data[end : end + 4])
    return data[:start] + data[end:]


def _texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Keywords and texts of a PNG's text chunks, in their order; none of any other file."""
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        return
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4]), head[4:]
        if kind in _TEXT_CHUNKS and length <= _TEXT_LIMIT:
            keyword, _, body = file.read(length).partition(b"\0")
            with contextlib.suppress(ValueError, zlib.error):
                yield keyword.decode("latin-1"), _text(kind, body)
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)


def _text(kind: bytes, body: bytes) -> str:
    """The text behind the keyword of a text chunk (PNG specification, 11.3.3)."""
    encoding = "utf-8" if kind == b"iTXt" else "latin-1"
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]  # flag and method, then language and translated keyword
    elif packed:
        body = body[1:]
    return (zlib.decompressobj().decompress(body, _TEXT_LIMIT) if packed else body).decode(encoding)


def _text_chunk(keyword: str, text: str) -> bytes:
    """An ``iTXt`` chunk: UTF-8, not compressed (PNG specification, 11.3.3.4)."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
