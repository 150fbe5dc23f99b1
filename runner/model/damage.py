"""Files of the hub's cache that are not what they should be, and taking them away so that they are fetched.

The cache has the content of files as blobs named by their hashes, and for each commit links to them.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files.header import HeaderError, UnreadDtypeError, read_header
from runner.model.selection import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.model.listing import Listing

HASHED_AT_ONCE = 8 << 20  # bytes; the content of larger files is held against their names where they changed
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def damaged(snapshot: Path, names: Iterable[str], listing: Listing | None) -> dict[str, str]:
    """What is wrong with files of a snapshot, by their names; those that are not there are no damage."""
    sizes = listing.sizes if listing else {}
    found = {name: _damage(snapshot / name, sizes.get(name)) for name in names}
    return {name: what for name, what in found.items() if what}


def remove(snapshot: Path, name: str) -> None:
    """Remove a file of a snapshot and its blob; what a link to elsewhere leads to is left alone.

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
            f"{blob} is damaged and cannot be removed: {error.strerror}; have it removed by who may write "
            "there, or set HF_HOME to a folder of your own, where all is fetched anew"
        ) from None


def _damage(path: Path, size: int | None) -> str:
    try:
        actual = path.stat().st_size
    except OSError:
        return ""
    if size is not None and actual != size:
        return f"it has {actual} bytes, and should have {size}"
    try:
        if path.name.endswith(WEIGHTS):
            read_header(path)
        return _wrong_content(path, actual)
    except UnreadDtypeError:
        return ""  # whole, and of no use
    except HeaderError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _wrong_content(path: Path, size: int) -> str:
    """What is wrong with the content of a small file: by its hash, where its blob is named by that."""
    if size > HASHED_AT_ONCE:
        return ""
    blob = path.resolve()
    data = blob.read_bytes()
    is_blob = blob.parent.name == "blobs"
    if is_blob and _SHA256.fullmatch(blob.name):
        hashes = {hashlib.sha256(data).hexdigest()}
    elif is_blob and _SHA1.fullmatch(blob.name):  # as git names blobs, or a mirror of the hub its files
        hashes = {hashlib.sha1(part).hexdigest() for part in (b"blob %d\0" % size + data, data)}
    else:  # systems without symbolic links have the files themselves
        return "it is no JSON" if path.suffix == ".json" and not _is_json(data) else ""
    return "" if blob.name in hashes else "its content is not what its blob's name says"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
