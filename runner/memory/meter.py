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


def core_count() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
