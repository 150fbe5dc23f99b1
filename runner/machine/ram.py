"""RAM of the machine, and of single processes.

A budget counts anonymous, shared and pinned pages. The page cache does not count: the kernel takes it back.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from runner.machine.cgroup import container_limit

if TYPE_CHECKING:
    from runner.machine.cgroup import Mounts


def total_ram() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def usable_ram(mounts: Mounts | None = None) -> int:
    """Bytes that this process may use: physical memory, or the container's limit where that is less."""
    return min(total_ram(), container_limit(mounts) or total_ram())


def ram_of(pid: int) -> int | None:
    """Bytes of RAM that a process holds (RssAnon + RssShmem on Linux, RSS elsewhere); None if it is gone."""
    if sys.platform == "linux":
        return _from_proc(pid)
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _from_proc(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123 - twenty times a second
            fields = dict(line.split(b":", 1) for line in status)
    except (OSError, ValueError):
        return None
    held = [fields.get(name) for name in (b"RssAnon", b"RssShmem")]
    if None in held:  # a zombie has no memory
        return None
    return sum(int(value.split()[0]) * 1024 for value in held if value)


def computed_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used; 0 if it is gone."""
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def is_suspended(pid: int) -> bool:
    """Whether a process was stopped by a signal and not continued since; False if it is gone."""
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - twenty times a second
                return stat.read().rpartition(b")")[2].split()[0] in (b"T", b"t")  # proc_pid_stat(5)
        except (OSError, IndexError):
            return False
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
