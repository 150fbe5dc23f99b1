"""torch's allocators: how much they may take, how much they took, and how it looks when they cannot."""

from __future__ import annotations

import torch


def limit_vram(device: str, limit: int | None) -> None:
    """Have the allocator refuse what would go over: bytes that it may reserve on the device."""
    if limit is not None and device.startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)


def vram_peak(device: str) -> int | None:
    """Bytes that the allocator has reserved at most; None on the CPU."""
    return int(torch.cuda.max_memory_reserved(device)) if device.startswith("cuda") else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or in RAM: torch's CPU allocator has no class for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
