"""What a machine has for workers: cores, RAM and accelerators."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from runner.machine.cgroup import container_limit
from runner.machine.devices import Accelerator, accelerators
from runner.machine.ram import core_count


@dataclass(frozen=True)
class Machine:
    """The machine that a plan is made for."""

    cores: int
    total_ram: int
    """Bytes of physical memory."""
    container_limit: int | None = None
    """Bytes that the container may use; None without a limit."""
    accelerators: tuple[Accelerator, ...] = ()

    @classmethod
    def here(cls, *, with_accelerators: bool = True) -> Self:
        """Describe this machine. The driver takes its time to list accelerators; they can be left out."""
        return cls(core_count(), _total_ram(), container_limit(), accelerators() if with_accelerators else ())

    @property
    def usable_ram(self) -> int:
        """Bytes that a plan may count on: physical memory, or the container's limit where that is less."""
        return min(self.total_ram, self.container_limit or self.total_ram)


def _total_ram() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
