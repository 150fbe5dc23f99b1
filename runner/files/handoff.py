"""Hand-offs: safetensors files that carry an item from stage to stage, sealed with a digest.

Its metadata name it (``key``, ``item``, ``stage``), record what it was made from (``lineage``) and with
(``versions``, ``device``, ``threads``), and hold what is not a tensor: ``text`` outputs, the JSON values of
``bundles``, and the digests of ``files`` beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.files.header import Header, HeaderError, check_size, header_length, parse_header
from runner.files.storage import open_to_read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DIGEST = "digest"
ALIGNMENT = 64  # bytes; where the data begins
_BESIDE = re.compile(r"[A-Za-z0-9._-]+")


class DamagedError(Exception):
    """A hand-off that was cut off or altered, or has another key; it is made again."""


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
    def bundles(self) -> dict[str, Any]:
        """The JSON values of each bundle, by output name."""
        return self._json("bundles")

    @property
    def lineage(self) -> dict[str, Any]:
        """What each stage so far was made from, by stage name."""
        return self._json("lineage")

    def _json(self, entry: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.header.metadata.get(entry, "{}"))
        return value


def seal(serialized: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with metadata and a digest of its content; equal content gives equal bytes.

    ``serialized`` is a safetensors file without metadata. (The library writes metadata in an order that
    changes from process to process.)
    """
    start = 8 + header_length(serialized, len(serialized))
    header = parse_header(serialized[8:start])
    tables = json.loads(serialized[8:start])
    digest = _digest(Header(header.tensors, metadata, header.size), serialized)
    tables["__metadata__"] = {**metadata, DIGEST: digest}
    text = json.dumps(tables, sort_keys=True).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + serialized[start:]


def read(path: Path, key: str | None = None) -> Handoff:
    """Read a hand-off; check its digest and, if given, its key.

    Raises:
        DamagedError: it is cut off or altered, or its key is another.
        OSError: it cannot be read.

    """
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            start = file.read(8)
            start += file.read(header_length(start, size))
            header = parse_header(start[8:])
            check_size(header, size)  # before memory is allocated for it
        except HeaderError as error:
            raise DamagedError(str(error)) from error
        file.seek(0)
        data = file.read(size)
    found = Handoff(header, data)
    as_checked = len(data) == size and data.startswith(start)
    if not as_checked or header.metadata.get(DIGEST) != _digest(header, data):
        raise DamagedError("its bytes are not those that were written")
    if key is not None and found.key != key:
        raise DamagedError("it belongs to another key")
    _check_metadata(found)
    for output, record in found.files.items():
        if not _is_there(path, record):
            raise DamagedError(f"its file {output!r} is not the one that was written")
    return found


def bundled_name(output: str, name: str) -> str:
    """The name in a hand-off of one of a bundle's tensors; no other output's name has the slash."""
    return f"{output}/{name}"


def record_of_file(name: str, data: bytes) -> dict[str, str]:
    """The entry for a file beside a hand-off in its metadata."""
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}


def _check_metadata(found: Handoff) -> None:
    """Check the types of what is read later: the digest proves that nothing was altered, not who wrote it."""
    try:
        whole = (
            all(isinstance(text, str) for text in found.text.values())
            and all(set(file) == {"name", "sha256"} for file in found.files.values())
            and isinstance(found.bundles, dict)
            and all(isinstance(stage["params"], dict) for stage in found.lineage.values())
        )
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        whole = False
    if not whole:
        raise DamagedError("its metadata are malformed")


def _is_there(path: Path, record: Mapping[str, str]) -> bool:
    """Whether a file that a hand-off lists is beside it, named after its key, with the recorded content."""
    name = record["name"]
    if not isinstance(name, str) or not _BESIDE.fullmatch(name) or not name.startswith(f"{path.stem}."):
        return False
    try:
        with open_to_read(path.with_name(name)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == record["sha256"]
    except OSError:
        return False


def _digest(header: Header, data: bytes) -> str:
    """SHA-256 of the tensors' names, dtypes, shapes, order and data, and of the metadata."""
    start = min((info.start for info in header.tensors.values()), default=len(data))
    table = {n: [i.dtype, i.shape, i.start - start] for n, i in header.tensors.items()}
    metadata = {name: value for name, value in header.metadata.items() if name != DIGEST}
    description = json.dumps([table, metadata], sort_keys=True).encode()
    hashed = hashlib.sha256(description)
    hashed.update(memoryview(data)[start:])
    return hashed.hexdigest()
