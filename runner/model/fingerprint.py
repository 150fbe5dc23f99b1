"""What a model is, by content: SHA-256 over the names and content hashes of its components' files.

Content hashes are cached by path, size, modification time and inode, so that a model is hashed once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ModelError, StorageError
from runner.storage import open_to_read, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.model.files import ComponentFiles

_LFS_BLOB = re.compile(r"[0-9a-f]{64}")
_CHUNK = 8 << 20
_READERS = 4  # hashing releases the GIL; more threads than this wait for the disk


def cache_folder() -> Path:
    """Where runner keeps what it can make again: ``RUNNER_CACHE``, else the user's cache folder."""
    if own := os.environ.get("RUNNER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "runner"


def fingerprint(files: Iterable[ComponentFiles], *, hash_missing: bool = True) -> str | None:
    """The fingerprint of some components; None if a file must be hashed first and may not be.

    Raises:
        ModelError: a file cannot be read.

    """
    paths = {name: f.folder / name for f in files for name in f.names}
    hashes = _Hashes(cache_folder() / "hashes.json")
    unknown = [path for path in paths.values() if hashes.known(path) is None]
    if unknown and not hash_missing:
        return None
    hashes.learn(unknown)
    lines = sorted(f"{name} {hashes.known(path)}\n" for name, path in paths.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class _Hashes:
    """SHA-256 of files, kept between runs."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        try:
            known = json.loads(cache.read_bytes())
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}

    def known(self, path: Path) -> str | None:
        """The file's hash if it is known without reading it."""
        target = path.resolve()
        if target.parent.name == "blobs" and _LFS_BLOB.fullmatch(target.name):
            return target.name  # a large file in the hub's cache is named by its own SHA-256
        entry = self._known.get(str(target))
        if isinstance(entry, list) and entry[:-1] == _identity(target):
            return str(entry[-1])
        return None

    def learn(self, paths: list[Path]) -> None:
        if not paths:
            return
        targets = [path.resolve() for path in paths]
        identities = [_identity(target) for target in targets]
        with ThreadPoolExecutor(_READERS) as pool:
            hashes = list(pool.map(_sha256, targets))
        for target, identity, digest in zip(targets, identities, hashes, strict=True):
            self._known[str(target)] = [*identity, digest]
        try:
            write_atomically(self._cache, json.dumps(self._known).encode())
        except StorageError:
            return  # without a cache the next run hashes again


def _identity(path: Path) -> list[object]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_to_read(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    return digest.hexdigest()
