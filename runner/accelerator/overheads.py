"""Memory that an accelerator's runtime takes besides a stage's tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.accelerator.names import CUDA, MPS, XPU, kind_of

MIB = 1 << 20


@dataclass(frozen=True)
class Overheads:
    """Bytes, in each worker."""

    ram: int = 0
    """The driver's share of host memory."""
    context: int = 0
    """Of the device, before the first tensor."""
    workspaces: int = 0
    """Of the device, kept by libraries of kernels, through torch's allocator."""


NONE = Overheads()
ESTIMATES = {
    # cuBLAS keeps 32 MiB on Hopper and 8 elsewhere, cuDNN's convolutions the rest of the workspaces
    CUDA: Overheads(ram=700 * MIB, context=560 * MIB, workspaces=72 * MIB),
    XPU: Overheads(ram=700 * MIB, context=560 * MIB, workspaces=72 * MIB),
    MPS: Overheads(workspaces=72 * MIB),
}
"""Estimates, until ``runner doctor`` has measured the context; other kinds are taken to have none."""


def overheads_of(device: str, context: int | None = None) -> Overheads:
    """The overheads of a device, by torch's name; ``context`` is what was measured there, if it was."""
    estimate = ESTIMATES.get(kind_of(device), NONE)
    return estimate if context is None else replace(estimate, context=context)
