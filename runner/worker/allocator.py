"""torch's memory allocators: limit, peak, and how to recognise their failure."""

from __future__ import annotations

import torch


def limit_vram(device: str, limit: int | None) -> None:
    """Limit the bytes that the allocator may reserve on the device."""
    if limit is not None and device.startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)


def vram_peak(device: str) -> int | None:
    """The peak of bytes that the allocator has reserved on the device; None on the CPU."""
    return int(torch.cuda.max_memory_reserved(device)) if device.startswith("cuda") else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or in RAM: torch's CPU allocator raises a RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
