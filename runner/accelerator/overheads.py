"""Memory that an accelerator's runtime takes besides a stage's tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.accelerator.names import CUDA, MPS, XPU, is_accelerator, kind_of
from runner.units import MIB


@dataclass(frozen=True)
class Overheads:
    """Memory in bytes that a device's runtime takes in each worker."""

    ram: int = 0
    """The driver's share of host memory."""
    context: int = 0
    """Device memory that the driver holds for a process before its first tensor."""
    workspaces: int = 0
    """Device memory that kernel libraries (cuBLAS, cuDNN) keep, through torch's allocator."""


NONE = Overheads()
ESTIMATES = {
    # cuBLAS keeps 32 MiB on Hopper and 8 elsewhere, cuDNN's convolutions the rest of the workspaces
    CUDA: Overheads(ram=700 * MIB, context=560 * MIB, workspaces=72 * MIB),
    XPU: Overheads(ram=700 * MIB, context=560 * MIB, workspaces=72 * MIB),
    MPS: Overheads(workspaces=72 * MIB),
}
"""Estimates, until ``runner doctor`` has measured the context."""
ALLOCATOR_ROUNDING = Overheads(workspaces=22 * MIB)
"""Other kinds: torch's allocator reserves 2 MiB at a time for small tensors, 20 MiB for medium ones."""


def overheads_of(device: str, context: int | None = None) -> Overheads:
    """The overheads of a device, by torch's name; ``context`` is what was measured there, if it was."""
    if not is_accelerator(device):
        return NONE
    estimate = ESTIMATES.get(kind_of(device), ALLOCATOR_ROUNDING)
    return estimate if context is None else replace(estimate, context=context)
