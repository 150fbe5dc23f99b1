"""Fingerprints of models: SHA-256 over the names and content hashes of their components' files.

Hashes are cached by path, size, times and inode, so that a model is hashed once. A large file in the hub's
cache is named by its hash; the name is trusted until size, times or inode change.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import ModelError, StorageError
from runner.files.cache import cache_folder
from runner.files.storage import open_to_read, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.model.files import ComponentFiles

_LFS_BLOB = re.compile(r"[0-9a-f]{64}")
_CHUNK = 8 << 20
_READERS = 4  # threads; hashing releases the GIL, and more would wait for the disk
_ATTEMPTS = 3  # at hashing a file that changes meanwhile
# nanoseconds within which two changes of a file may get the same time: the kernel's tick with a margin, or
# two seconds on file systems that store whole seconds
_TICK = 50_000_000
_COARSE_TICK = 2_000_000_000


def fingerprint(files: Iterable[ComponentFiles], *, hash_missing: bool = True) -> str | None:
    """The fingerprint of some components; None if ``hash_missing`` is false and a file is not hashed yet.

    Raises:
        ModelError: a file cannot be read.

    """
    paths = {name: f.folder / name for f in files for name in f.names}
    hashes = _Hashes(cache_folder() / "hashes.json")
    unknown = [path for path in paths.values() if hashes.known(path) is None]
    if unknown and not hash_missing:
        return None
    if unknown:
        hashes.learn(unknown)
    if hash_missing:
        hashes.trust_names(list(paths.values()))
    lines = sorted(f"{name} {hashes.known(path)}\n" for name, path in paths.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def trust_names(files: Iterable[ComponentFiles]) -> None:
    """Record the current identities of files in the hub's cache, and take their names for their hashes."""
    _Hashes(cache_folder() / "hashes.json").trust_names([f.folder / name for f in files for name in f.names])


def altered(files: Iterable[ComponentFiles]) -> list[str]:
    """Names of files in the hub's cache whose content no longer matches the hashes in their blobs' names.

    Only files whose recorded identity has changed are read.

    Raises:
        ModelError: a file cannot be read.

    """
    hashes = _Hashes(cache_folder() / "hashes.json")
    paths = {name: f.folder / name for f in files for name in f.names}
    named = {name: path for name, path in paths.items() if _name_as_hash(path.resolve())}
    unknown = [path for path in named.values() if hashes.known(path) is None]
    if unknown:
        hashes.learn(unknown)
    return [name for name, path in named.items() if hashes.known(path) != _name_as_hash(path.resolve())]


class _Hashes:
    """SHA-256 of files, cached in a JSON file between runs."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        try:
            known = json.loads(cache.read_bytes())
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}
        self._uncached: dict[Path, str] = {}
        """Hashes of files that changed too recently for a later change to be noticed."""

    def known(self, path: Path) -> str | None:
        """The file's hash if it is known without reading it, else None."""
        target = path.resolve()
        if target in self._uncached:
            return self._uncached[target]
        entry = self._known.get(str(target))
        if isinstance(entry, list) and entry[:-1] == _identity(target):
            return str(entry[-1])
        return _name_as_hash(target) if entry is None else None

    def learn(self, paths: list[Path]) -> None:
        """Hash files, and cache the hashes if later changes would be noticed."""
        targets = [path.resolve() for path in paths]
        with ThreadPoolExecutor(_READERS) as pool:
            hashed = list(pool.map(_hash_unchanged, targets))
        for target, (identity, digest) in zip(targets, hashed, strict=True):
            if identity is None:
                self._uncached[target] = digest
            else:
                self._known[str(target)] = [*identity, digest]
        self._write()

    def trust_names(self, paths: list[Path]) -> None:
        """Record the identities of files whose names are taken for their hashes."""
        targets = [target for path in paths if str(target := path.resolve()) not in self._known]
        named = {target: name for target in targets if (name := _name_as_hash(target))}
        recorded = {str(t): [*_identity(t), name] for t, name in named.items() if _wait_for_tick(t)}
        if recorded:
            self._known |= recorded
            self._write()

    def _write(self) -> None:
        with suppress(StorageError):  # without a cache the next run hashes again
            write_atomically(self._cache, json.dumps(self._known).encode())


def _name_as_hash(target: Path) -> str | None:
    """The hash in a file's name, which large files in the hub's cache have; None for other files."""
    named = target.parent.name == "blobs" and _LFS_BLOB.fullmatch(target.name)
    return target.name if named else None


def _identity(path: Path) -> list[object]:
    """Size, times and inode: they differ once a file is changed, unless within a tick of the clock.

    The time of change (ctime) is included because programs cannot set it.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash_unchanged(path: Path) -> tuple[list[object] | None, str]:
    """A file's identity and hash; the identity is None if a later change might not alter it.

    Raises:
        ModelError: the file cannot be read, or changed during each attempt.

    """
    for _ in range(_ATTEMPTS):
        is_settled = _wait_for_tick(path)
        before = _identity(path)
        digest = _sha256(path)
        if _identity(path) == before:
            return before if is_settled else None, digest
    raise ModelError(f"{path} was written to while it was read; run again when it is complete")


def _wait_for_tick(path: Path) -> bool:
    """Wait until a further change would get a later time than the last one.

    False if that is unknown, because the clock was set back.
    """
    changed = path.stat().st_ctime_ns
    tick = _TICK if changed % 1_000_000_000 else _COARSE_TICK
    left = changed + tick - time.time_ns()
    if 0 < left <= tick:
        time.sleep(left / 1e9)
    return left <= tick


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_to_read(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    return digest.hexdigest()
