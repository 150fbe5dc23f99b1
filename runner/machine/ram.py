"""Memory of a process: anonymous, shared and pinned pages, which are what a budget is about.

The page cache is the kernel's to take back and does not count.
"""

from __future__ import annotations

import os
import sys


def ram_of(pid: int) -> int | None:
    """Bytes of RAM that a process holds (RssAnon + RssShmem); None if it is gone."""
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


def is_suspended(pid: int) -> bool:
    """Whether a process was stopped by a signal, and has not been continued yet."""
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


def core_count() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
