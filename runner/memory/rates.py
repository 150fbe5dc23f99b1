"""How fast this machine moves bytes, measured once and kept: what a plan estimates its times from."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import platform
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.model.fingerprint import cache_folder
from runner.storage import write_atomically

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

_CHUNK = 8 << 20
_SIZE = 512 << 20
_SYNCED = 16 << 20  # written at a time, so that a slow disk is noticed
_SPARE = 256 << 20  # bytes that stay free
_READERS = 4
_SECONDS = 2.0  # for writing, and again for reading
_COPIED = 64 << 20


@dataclass(frozen=True)
class Rates:
    """Bytes in a second."""

    disk_read: float | None
    """Large reads past the page cache; None where they could not be measured."""
    memory_copy: float
    """From memory to memory, by one thread."""


def measure(folder: Path) -> Rates:
    """Measure the disk that a folder is on, and memory; takes up to 5 s and leaves nothing but the cache.

    ``folder`` need not exist: its nearest parent that does is on the same disk.
    """
    place = nearest(folder)
    rates = Rates(_disk_read(place), _memory_copy())
    if rates.disk_read is not None:
        _keep(place, rates)
    return rates


def cached(folder: Path) -> Rates | None:
    """What was last measured on this host for the disk that a folder is on; None if nothing was."""
    entry = _entries().get(_key(nearest(folder)))
    if not isinstance(entry, dict):
        return None
    disk, memory = entry.get("disk_read"), entry.get("memory_copy")
    if not isinstance(disk, float) or not isinstance(memory, float) or min(disk, memory) <= 0:
        return None  # written by another version, or by hand
    return Rates(disk, memory)


def nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that is there."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _disk_read(folder: Path) -> float | None:
    # a rate that the page cache had a part in would promise too much: none at all is better
    if not hasattr(os, "preadv") or not hasattr(os, "posix_fadvise"):
        return None
    try:
        if shutil.disk_usage(folder).free < _SIZE + _SPARE:
            return None
        # it has no name, so that no interruption leaves it behind
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return _read(file.fileno(), _write(file))
    except OSError:
        return None


def _write(file: FileIO) -> int:
    """Fill a file with what no file system can compress; returns its size in bytes."""
    chunk = os.urandom(_CHUNK)
    deadline = time.monotonic() + _SECONDS
    written = 0
    while written < _SIZE and time.monotonic() < deadline:
        for _ in range(_SYNCED // _CHUNK):
            written += file.write(chunk)
        os.fsync(file.fileno())
    return written


def _read(descriptor: int, size: int) -> float:
    """Bytes a second, directly from the disk where the file system can."""
    import fcntl

    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | getattr(os, "O_DIRECT", 0))
        return _race(descriptor, size)
    except OSError:  # refused at once, as by some network file systems, or at the first read
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        return _race(descriptor, size)


def _race(descriptor: int, size: int) -> float:
    """Several threads read every so many chunks of a file, until its end or the time's."""
    began = time.monotonic()
    deadline = began + _SECONDS

    def reader(number: int) -> int:
        got = 0
        with mmap.mmap(-1, _CHUNK) as buffer:  # begins at a page, as direct reads ask for
            for offset in range(number * _CHUNK, size, _READERS * _CHUNK):
                if time.monotonic() > deadline:
                    break
                got += os.preadv(descriptor, [buffer], offset)
        return got

    with ThreadPoolExecutor(_READERS) as pool:
        read = sum(pool.map(reader, range(_READERS)))
    return read / (time.monotonic() - began)


def _memory_copy() -> float:
    source, target = bytearray(b"\1") * _COPIED, memoryview(bytearray(b"\1") * _COPIED)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        target[:] = source
        seconds.append(time.perf_counter() - began)
    return _COPIED / min(seconds)


def _key(place: Path) -> str:
    return f"{platform.node()}:{place.stat().st_dev}"


def _entries() -> dict[str, object]:
    try:
        entries = json.loads((cache_folder() / "rates.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _keep(place: Path, rates: Rates) -> None:
    entries = {**_entries(), _key(place): asdict(rates)}
    with contextlib.suppress(StorageError):  # without a cache the next one measures again
        write_atomically(cache_folder() / "rates.json", json.dumps(entries).encode())
