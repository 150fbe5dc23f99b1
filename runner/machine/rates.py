"""How fast this machine reads, computes and moves bytes, measured once and kept for the times of plans."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeGuard

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import write_atomically
from runner.machine.cpu import core_count
from runner.machine.devices import accelerators

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO
    from pathlib import Path

_CHUNK = 8 << 20
_SIZE = 512 << 20
_SYNCED = 16 << 20  # written at a time, so that a slow disk is noticed
_SPARE = 256 << 20  # bytes that stay free
_READERS = 4
_SECONDS = 2.0  # for writing, and again for reading
BUSY = 0.5  # of the cores: a higher load
_PATIENCE = 120.0  # seconds for torch to be imported and a device to be measured


@dataclass(frozen=True)
class DeviceRates:
    """How fast a device computes and is reached."""

    compute: Mapping[str, float]
    """Operations a second by dtype; on the CPU those of one thread."""
    bus: float | None
    """Bytes a second from pinned memory; None on the CPU."""
    busy: bool = False
    """Whether others used the machine meanwhile, so that it may be faster."""


def is_busy() -> bool:
    """Whether others compute on this machine now, so that what is measured would be too slow."""
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def measure_disk(folder: Path, *, busy: bool = False) -> float | None:
    """Bytes a second of large reads past the page cache, from the disk that a folder is on.

    Takes up to 5 s and leaves nothing but the cache; None where it cannot be measured. ``folder`` need not
    exist: its nearest parent that does is on the same disk. On a ``busy`` machine a faster one that was
    measured before is kept.
    """
    place = nearest(folder)
    rate = _disk_read(place)
    if rate is not None and not (busy and (cached_disk(place) or 0.0) > rate):
        keep(_key(place), rate)
    return rate


def cached_disk(folder: Path) -> float | None:
    """What was last measured on this host for the disk that a folder is on; None if nothing was."""
    rate = entries().get(_key(nearest(folder)))
    return rate if is_rate(rate) else None


def measure_device(device: str, *, busy: bool = False) -> DeviceRates | None:
    """Measure a device, by torch's name for it; None where that fails. Importing torch takes its time.

    What a ``busy`` machine measures does not take the place of what a calm one has.
    """
    command = [sys.executable, "-m", "runner.worker.speed", device]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    threads = core_count() if device == "cpu" else 1
    found["compute"] = {dtype: rate / threads for dtype, rate in found["compute"].items()}
    rates, before = DeviceRates(**found, busy=busy), cached_device(device)
    if not busy or before is None or before.busy:
        keep(device_key(device), vars(rates))
    return rates


def cached_device(device: str) -> DeviceRates | None:
    """What was last measured on this host for a device; None if nothing was."""
    found = entries().get(device_key(device))
    if not isinstance(found, dict):
        return None
    compute, bus = found.get("compute"), found.get("bus")
    if not isinstance(compute, dict) or not all(map(is_rate, compute.values())):
        return None  # written by another version, or by hand
    busy = bool(found.get("busy", False))
    return DeviceRates(compute, bus, busy) if bus is None or is_rate(bus) else None


def nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that is there."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _disk_read(folder: Path) -> float | None:
    # a rate that the page cache had a part in would promise too much: none at all is better
    if not hasattr(os, "posix_fadvise"):  # macOS
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


def is_rate(value: object) -> TypeGuard[float]:
    """Whether it can have been measured: the file may be another version's, or written by hand."""
    return isinstance(value, float) and 0 < value < inf


def _key(place: Path) -> str:
    return f"{platform.node()}:{place.stat().st_dev}"


def device_key(device: str) -> str:
    """By what a device's rates are kept: a card is known by its name: what number it has may change."""
    found = accelerators() if device != "cpu" else ()
    number = int(device.partition(":")[2] or 0)
    return f"{platform.node()}:{found[number].name if number < len(found) else device}"


def entries() -> dict[str, object]:
    """All that was measured, by key."""
    try:
        found = json.loads((cache_folder() / "rates.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(key: str, rates: object) -> None:
    """Keep what was measured, as JSON."""
    kept = {**entries(), key: rates}
    with contextlib.suppress(StorageError):  # without a cache the next one measures again
        write_atomically(cache_folder() / "rates.json", json.dumps(kept).encode())
