"""SHA-256 of files, cached by path, size, times and inode, so that a file is hashed once.

A large file in the hub's cache is named by its hash; that may be trusted until size, times or inode change.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import open_to_read, write_atomically

if TYPE_CHECKING:
    from os import stat_result

Identities = Mapping[Path, tuple[object, ...]]
"""Files with what differs once one is changed or replaced: see :func:`identity_of`."""

_LFS_BLOB = re.compile(r"[0-9a-f]{64}")
_CHUNK = 8 << 20
_READERS = 4  # threads; hashing releases the GIL, and more would wait for the disk
_ATTEMPTS = 3  # at hashing a file that changes meanwhile
# nanoseconds within which two changes of a file may get the same time: the kernel's tick with a margin, or
# two seconds on file systems that store whole seconds
_TICK = 50_000_000
_COARSE_TICK = 2_000_000_000


class HashError(Exception):
    """A file cannot be hashed; the message names it and says why."""


class FileHashes:
    """SHA-256 of files, cached in a JSON file between runs; by default in the user's cache folder."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or cache_folder() / "hashes.json"
        self._known = self._read()
        self._learned: dict[str, list[object]] = {}
        """Those of ``_known`` that are not in the file yet."""
        self._uncached: dict[Path, str] = {}
        """Hashes of files that changed too recently for a later change to be noticed."""

    def known(self, path: Path) -> str | None:
        """The file's hash if it is known without reading it, else None.

        Raises:
            HashError: it is not there.

        """
        target = path.resolve()
        if target in self._uncached:
            return self._uncached[target]
        entry = self._known.get(str(target))
        if isinstance(entry, list) and entry[:-1] == _identity(target):
            return str(entry[-1])
        return name_as_hash(target) if entry is None else None

    def digest(self, path: Path) -> str:
        """The hash of a file's content now; the caller saves what is new.

        Raises:
            HashError: it cannot be read.

        """
        target = path.resolve()
        entry = self._known.get(str(target))
        if isinstance(entry, list) and entry[:-1] == _identity(target):
            return str(entry[-1])
        identity, digest = _hash_unchanged(target)
        if identity is not None:
            self._known[str(target)] = self._learned[str(target)] = [*identity, digest]
        return digest

    def learn(self, paths: list[Path]) -> None:
        """Hash files, and cache the hashes if later changes would be noticed.

        Raises:
            HashError: one cannot be read.

        """
        targets = [path.resolve() for path in paths]
        with ThreadPoolExecutor(_READERS) as pool:
            hashed = list(pool.map(_hash_unchanged, targets))
        for target, (identity, digest) in zip(targets, hashed, strict=True):
            if identity is None:
                self._uncached[target] = digest
            else:
                self._learned[str(target)] = [*identity, digest]
        self._known |= self._learned
        self.save()

    def trust_names(self, paths: list[Path]) -> None:
        """Record the identities of files whose names are taken for their hashes."""
        targets = [target for path in paths if str(target := path.resolve()) not in self._known]
        named = {target: name for target in targets if (name := name_as_hash(target))}
        recorded = {str(t): [*_identity(t), name] for t, name in named.items() if _wait_for_tick(t)}
        if recorded:
            self._known |= recorded
            self._learned |= recorded
            self.save()

    def save(self) -> None:
        """Add to the file what it lacks; other processes may have added to it since it was read."""
        if self._learned:
            with suppress(StorageError):  # without a cache the next run hashes again
                write_atomically(self._cache, json.dumps(self._read() | self._learned).encode())
            self._learned = {}

    def _read(self) -> dict[str, list[object]]:
        try:
            known = json.loads(self._cache.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def cached_hashes() -> FileHashes:
    """The hashes in the user's cache folder, read once by a process."""
    return _cached(cache_folder() / "hashes.json")


@cache
def _cached(file: Path) -> FileHashes:
    return FileHashes(file)


def name_as_hash(target: Path) -> str | None:
    """The hash in a file's name, which large files in the hub's cache have; None for other files."""
    named = target.parent.name == "blobs" and _LFS_BLOB.fullmatch(target.name)
    return target.name if named else None


def identity_of(path: Path) -> tuple[object, ...]:
    """What differs once a file is changed or replaced; raises HashError where there is none."""
    return tuple(_identity(path))


def _identity(path: Path) -> list[object]:
    """Size, times and inode: they differ once a file is changed, unless within a tick of the clock.

    The time of change (ctime) is included because programs cannot set it.
    """
    stat = _stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _stat(path: Path) -> stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise HashError(f"{path} cannot be read: {error.strerror}") from None


def _hash_unchanged(path: Path) -> tuple[list[object] | None, str]:
    """A file's identity and hash; the identity is None if a later change might not alter it.

    Raises:
        HashError: the file cannot be read, or changed during each attempt.

    """
    for _ in range(_ATTEMPTS):
        is_settled = _wait_for_tick(path)
        before = _identity(path)
        digest = _sha256(path)
        if _identity(path) == before:
            return before if is_settled else None, digest
    raise HashError(f"{path} was written to while it was read; run again when it is complete")


def _wait_for_tick(path: Path) -> bool:
    """Wait until a further change would get a later time than the last one.

    False if that is unknown, because the clock was set back.
    """
    changed = _stat(path).st_ctime_ns
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
        raise HashError(f"{path} cannot be read: {error.strerror}") from None
    return digest.hexdigest()
