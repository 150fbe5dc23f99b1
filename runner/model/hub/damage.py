"""Finds damaged files in the hub's cache, and removes them so that they are fetched again.

The cache stores file contents as blobs named by their hashes, and for each commit a folder of links to them.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files.gguf import read_gguf
from runner.files.header import HeaderError, UnreadFormatError, read_header
from runner.model.selection import GGUF, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.model.hub.listing import Listing

HASHED_AT_ONCE = 8 << 20  # bytes; larger files are hashed only if they have changed (see fingerprint)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def damaged(snapshot: Path, names: Iterable[str], listing: Listing | None) -> dict[str, str]:
    """Descriptions of the damage of a snapshot's files, by name; missing files are not damaged."""
    sizes = listing.sizes if listing else {}
    found = {name: _damage(snapshot / name, sizes.get(name)) for name in names}
    return {name: what for name, what in found.items() if what}


def remove(snapshot: Path, name: str) -> None:
    """Remove a file of a snapshot and its blob; the target of a link out of the cache is kept.

    Raises:
        ModelError: it cannot be removed.

    """
    link = snapshot / name
    blob = link.resolve()
    try:
        if blob.parent == snapshot.resolve().parent.parent / "blobs":
            blob.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(
            f"{blob} is damaged and cannot be removed: {error.strerror}; have its owner remove it, or set "
            "HF_HOME to a folder of your own, into which the model is fetched again"
        ) from None


def _damage(path: Path, size: int | None) -> str:
    """A description of a file's damage; empty if it has none. ``size`` is its size in bytes, if known."""
    try:
        actual = path.stat().st_size
    except OSError:
        return ""
    if size is not None and actual != size:
        return f"it has {actual} bytes and should have {size}"
    try:
        if path.name.endswith(WEIGHTS):
            read_header(path)
        elif path.name.endswith(GGUF):
            read_gguf(path)
        return _wrong_content(path, actual)
    except UnreadFormatError:
        return ""  # intact, although it cannot be loaded
    except HeaderError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _wrong_content(path: Path, size: int) -> str:
    """A description of a small file's damage: it is not JSON, or its hash is not that in its blob's name."""
    if size > HASHED_AT_ONCE:
        return ""
    blob = path.resolve()
    data = blob.read_bytes()
    is_blob = blob.parent.name == "blobs"
    if is_blob and _SHA256.fullmatch(blob.name):
        hashes = {hashlib.sha256(data).hexdigest()}
    elif is_blob and _SHA1.fullmatch(blob.name):  # git's hash, or a plain one from a mirror
        hashes = {hashlib.sha1(part).hexdigest() for part in (b"blob %d\0" % size + data, data)}
    else:  # on systems without symbolic links a snapshot has the files themselves
        return "it is not JSON" if path.suffix == ".json" and not _is_json(data) else ""
    return "" if blob.name in hashes else "its content does not match the hash in its blob's name"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
