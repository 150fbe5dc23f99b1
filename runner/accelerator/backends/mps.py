"""Apple's processors: RAM and the device's memory are the same."""

from __future__ import annotations

import platform

import torch

from runner.accelerator.backends.generic import AcceleratorBackend


class MpsBackend(AcceleratorBackend):
    """The device of ``torch.mps``; its functions take no device argument."""

    def in_use(self) -> bool:
        """Always true: torch cannot report it."""
        return True

    def name(self) -> str:
        return f"mps {platform.processor()}"

    def uuid(self) -> str:
        return ""

    def total_memory(self) -> int:
        return int(torch.mps.recommended_max_memory())

    def limit_memory(self, limit: int | None) -> None:
        if limit is not None:
            torch.mps.set_per_process_memory_fraction(min(1.0, limit / self.total_memory()))

    def reserved_peak(self) -> None:
        """None: torch has no peak, only what is reserved now."""

    def process_memory(self) -> int:
        return int(torch.mps.driver_allocated_memory())

    def generators(self) -> tuple[torch.Generator, ...]:
        return (self.generator(),)

    def generator(self) -> torch.Generator:
        return torch.mps._get_default_mps_generator()  # noqa: SLF001 - it has no public name

    def pinned(self, size: int) -> torch.Tensor:
        """Plain RAM: the device reads it as it is."""
        return torch.empty(size, dtype=torch.uint8)
