"""Has the kernel limit a worker's RAM, by a control group; the sampled limit is in ``stage_worker.py``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.machine.cgroup import MemoryGroup

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def limited(pid: int, ram: int | None) -> Iterator[MemoryGroup | None]:
    """Put a process into a control group that limits it to ``ram`` bytes; removed afterwards.

    Yields None where there is no limit, or no group can be made: then the worker is limited only by the
    supervisor, which samples its memory.
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
