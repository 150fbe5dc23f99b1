"""Memory of the machine, as far as this process may use it."""

from __future__ import annotations

import os

from runner.machine.cgroup import container_limit


def total_ram() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def usable_ram() -> int:
    """Bytes that a plan may count on: physical memory, or a container's limit where that is less."""
    return min(total_ram(), container_limit() or total_ram())
