"""What a model is, by content: SHA-256 over the names and content hashes of its components' files.

Content hashes are cached by path and by what changes with the content (:func:`_identity`), so that a model is
hashed once. A large file in the hub's cache is named by its hash: the name is taken for the hash until the
file's identity is no longer the one that it had then.
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
_READERS = 4  # hashing releases the GIL; more threads than this wait for the disk
_ATTEMPTS = 3  # to hash a file that changes meanwhile
# nanoseconds in which a file system may give two changes the same time: the kernel's tick, with a margin, and
# two seconds where times are kept in whole seconds
_TICK = 50_000_000
_COARSE_TICK = 2_000_000_000


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
    if unknown:
        hashes.learn(unknown)
    if hash_missing:
        hashes.note_names(list(paths.values()))
    lines = sorted(f"{name} {hashes.known(path)}\n" for name, path in paths.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def note(files: Iterable[ComponentFiles]) -> None:
    """Note the identities of files in the hub's cache, whose names are taken for their hashes from now on."""
    _Hashes(cache_folder() / "hashes.json").note_names([f.folder / name for f in files for name in f.names])


def altered(files: Iterable[ComponentFiles]) -> list[str]:
    """Names of files in the hub's cache that no longer hold what their blobs' names say.

    Only a file whose identity is not the one that was noted is read for that.

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
    """SHA-256 of files, kept between runs."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        try:
            known = json.loads(cache.read_bytes())
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}
        self._unkept: dict[Path, str] = {}
        """Of files that are too young to be recognised later: they are hashed again the next time."""

    def known(self, path: Path) -> str | None:
        """The file's hash if it is known without reading it."""
        target = path.resolve()
        if target in self._unkept:
            return self._unkept[target]
        entry = self._known.get(str(target))
        if isinstance(entry, list) and entry[:-1] == _identity(target):
            return str(entry[-1])
        return _name_as_hash(target) if entry is None else None

    def learn(self, paths: list[Path]) -> None:
        """Hash files, and keep what can be recognised later."""
        targets = [path.resolve() for path in paths]
        with ThreadPoolExecutor(_READERS) as pool:
            hashed = list(pool.map(_hash_unchanged, targets))
        for target, (identity, digest) in zip(targets, hashed, strict=True):
            if identity is None:
                self._unkept[target] = digest
            else:
                self._known[str(target)] = [*identity, digest]
        self._write()

    def note_names(self, paths: list[Path]) -> None:
        """Keep the identities of files whose names were taken for their hashes."""
        targets = [target for path in paths if str(target := path.resolve()) not in self._known]
        named = {target: name for target in targets if (name := _name_as_hash(target))}
        noted = {str(t): [*_identity(t), name] for t, name in named.items() if _grow_old(t)}
        if noted:
            self._known |= noted
            self._write()

    def _write(self) -> None:
        with suppress(StorageError):  # without a cache the next run hashes again
            write_atomically(self._cache, json.dumps(self._known).encode())


def _name_as_hash(target: Path) -> str | None:
    """The hash that a file's name says: large files in the hub's cache have it."""
    named = target.parent.name == "blobs" and _LFS_BLOB.fullmatch(target.name)
    return target.name if named else None


def _identity(path: Path) -> list[object]:
    """What differs once a file was written to or replaced, unless that was within a tick of its clock.

    The time of change is the system's own: unlike that of modification, nobody can set it back.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash_unchanged(path: Path) -> tuple[list[object] | None, str]:
    """A file's hash, and its identity if a later change is sure to change that.

    Raises:
        ModelError: the file cannot be read, or was written to each time while it was.

    """
    for _ in range(_ATTEMPTS):
        old_enough = _grow_old(path)
        before = _identity(path)
        digest = _sha256(path)
        if _identity(path) == before:
            return before if old_enough else None, digest
    raise ModelError(f"{path} was written to while it was read; run again when it is whole")


def _grow_old(path: Path) -> bool:
    """Wait until another change would get another time than the last one; False where a clock was set back
    and nobody knows when that is.
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
