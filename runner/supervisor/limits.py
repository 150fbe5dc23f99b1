"""What a worker may take, and the kernel's help in keeping it to that."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.machine.cgroup import MemoryGroup

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker may take: seconds that one item computes, bytes of RAM."""

    timeout: float | None = None
    ram: int | None = None


@contextmanager
def limited(pid: int, ram: int | None) -> Iterator[MemoryGroup | None]:
    """Keep a process under a limit by a control group, where one can be made.

    Without one, the watchdog that samples its memory is alone.
    """
    group = MemoryGroup.make(ram) if ram is not None else None
    if group is None:
        yield None
        return
    try:
        group.add(pid)
        yield group
    finally:
        group.close()
