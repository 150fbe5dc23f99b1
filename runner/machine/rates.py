"""Speeds of this machine's disk and devices, measured by `doctor` and cached for the times of plans."""

from __future__ import annotations

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

from runner.accelerator.discovery import accelerators, device_named
from runner.accelerator.names import is_accelerator
from runner.files.cache import cache_value, cached_values
from runner.machine.cpu import core_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO
    from pathlib import Path

_FILE = "rates.json"
_CHUNK = 8 << 20
_SIZE = 512 << 20
_SYNCED = 16 << 20  # bytes between two fsyncs, so that a slow disk is noticed in time
_SPARE = 256 << 20  # bytes that must stay free on the disk
_READERS = 4
_SECONDS = 2.0  # for writing, and again for reading
BUSY = 0.5  # load per core above which the machine is busy
_PATIENCE = 120.0  # seconds to import torch and measure a device


@dataclass(frozen=True)
class DeviceRates:
    """Measured speeds of a device."""

    compute: Mapping[str, float]
    """Operations a second by dtype; on the CPU of one thread."""
    bus: float | None
    """Bytes a second from pinned RAM; None on the CPU."""
    context: int | None = None
    """Bytes of the device's memory that a process holds besides tensors; None on the CPU, or if unknown."""
    busy: bool = False
    """Whether the machine was busy when it was measured, so that it may be faster."""


def is_busy() -> bool:
    """Whether other processes load this machine, so that measured speeds would be too low."""
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def measure_disk(folder: Path, *, busy: bool = False) -> float | None:
    """Measure large reads past the page cache from a folder's disk, in bytes a second, and cache the result.

    Takes up to 5 s; None where it cannot be measured. ``folder`` need not exist: its nearest existing parent
    is on the same disk. On a ``busy`` machine a higher speed that is cached stays.
    """
    place = nearest(folder)
    rate = _disk_read(place)
    if rate is not None and not (busy and (cached_disk(place) or 0.0) > rate):
        keep(_key(place), rate)
    return rate


def cached_disk(folder: Path) -> float | None:
    """The cached speed of a folder's disk on this host, in bytes a second; None if there is none."""
    rate = entries().get(_key(nearest(folder)))
    return rate if is_rate(rate) else None


def measure_device(device: str, *, busy: bool = False) -> DeviceRates | None:
    """Measure a device, by its torch name, in a process that imports torch; None if that fails.

    Results of a ``busy`` machine do not replace cached ones of an idle one.
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
    """The cached speeds of a device on this host; None if there are none, or they are malformed."""
    found = entries().get(device_key(device))
    if not isinstance(found, dict):
        return None
    compute, bus = found.get("compute"), found.get("bus")
    if not isinstance(compute, dict) or not all(map(is_rate, compute.values())):
        return None  # written by another version, or by hand
    busy, context = bool(found.get("busy", False)), found.get("context")
    context = context if isinstance(context, int) and context >= 0 else None
    return DeviceRates(compute, bus, context, busy) if bus is None or is_rate(bus) else None


def nearest(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _disk_read(folder: Path) -> float | None:
    # no rate is better than one that includes the page cache, which would be far too high
    if not hasattr(os, "posix_fadvise"):  # macOS
        return None
    try:
        if shutil.disk_usage(folder).free < _SIZE + _SPARE:
            return None
        # without a name, an interruption cannot leave it behind
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return _read(file.fileno(), _write(file))
    except OSError:
        return None


def _write(file: FileIO) -> int:
    """Fill a file with incompressible data; returns its size in bytes."""
    chunk = os.urandom(_CHUNK)
    deadline = time.monotonic() + _SECONDS
    written = 0
    while written < _SIZE and time.monotonic() < deadline:
        for _ in range(_SYNCED // _CHUNK):
            written += file.write(chunk)
        os.fsync(file.fileno())
    return written


def _read(descriptor: int, size: int) -> float:
    """Bytes a second, with direct reads if the file system has them."""
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
    """Read a file in several threads for `_SECONDS` at most; returns bytes a second."""
    began = time.monotonic()
    deadline = began + _SECONDS

    def reader(number: int) -> int:
        got = 0
        with mmap.mmap(-1, _CHUNK) as buffer:  # page-aligned, as direct reads require
            for offset in range(number * _CHUNK, size, _READERS * _CHUNK):
                if time.monotonic() > deadline:
                    break
                got += os.preadv(descriptor, [buffer], offset)
        return got

    with ThreadPoolExecutor(_READERS) as pool:
        read = sum(pool.map(reader, range(_READERS)))
    return read / (time.monotonic() - began)


def is_rate(value: object) -> TypeGuard[float]:
    """Whether a cached value is a valid rate: the file may be another version's, or edited by hand."""
    return isinstance(value, float) and 0 < value < inf


def _key(place: Path) -> str:
    return f"{platform.node()}:{place.stat().st_dev}"


def device_key(device: str) -> str:
    """The cache key of a device. A card has its name in it, since its number may change."""
    card = device_named(device, accelerators()) if is_accelerator(device) else None
    return f"{platform.node()}:{card.name if card else device}"


def entries() -> dict[str, object]:
    """All cached measurements, by key."""
    return cached_values(_FILE)


def keep(key: str, rates: object) -> None:
    """Cache a measurement; ``rates`` is JSON data."""
    cache_value(_FILE, key, rates)
