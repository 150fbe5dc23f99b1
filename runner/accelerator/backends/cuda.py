"""NVIDIA's cards, and AMD's, for which torch has the same functions (ROCm)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from runner.accelerator import nvml
from runner.accelerator.backends.generic import AcceleratorBackend

if TYPE_CHECKING:
    from collections.abc import Callable


class CudaBackend(AcceleratorBackend):
    """A card by ``torch.cuda``."""

    def check(self) -> None:
        super().check()
        # with another algorithm an allocation that fails would change the low bits: budgets must not
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True

    def uuid(self) -> str:
        return f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"

    def process_memory(self) -> int | None:
        return nvml.process_memory(self.uuid(), os.getpid()) if torch.version.hip is None else None

    def context_size(self) -> int | None:
        """As the driver reports it for this process, less what the allocator holds."""
        torch.zeros(1, device=self.device)  # its first use makes the context
        held = self.process_memory()
        return None if held is None else held - torch.cuda.memory_reserved(self.device)

    def _register_functions(self) -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]

        def register(address: int, size: int) -> int:
            return int(runtime.cudaHostRegister(address, size, 0))

        def unregister(address: int) -> int:
            return int(runtime.cudaHostUnregister(address))

        return register, unregister
