"""How it looks when memory runs out."""

from __future__ import annotations

import pytest
import torch

from runner.worker.allocator import is_out_of_memory, vram_peak


def test_an_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


def test_the_cpu_has_no_vram() -> None:
    assert vram_peak("cpu") is None
