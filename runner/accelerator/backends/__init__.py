"""One interface to every kind of device, over torch; only workers import it."""

from __future__ import annotations

from functools import cache

import torch

from runner.accelerator.backends.base import Backend, DeviceLostError, is_out_of_memory
from runner.accelerator.backends.cpu import CpuBackend
from runner.accelerator.backends.cuda import CudaBackend
from runner.accelerator.backends.generic import AcceleratorBackend
from runner.accelerator.backends.mps import MpsBackend
from runner.accelerator.names import CPU, CUDA, MPS

__all__ = [
    "Backend",
    "DeviceLostError",
    "accelerator_in_use",
    "autocast_kinds",
    "backend_of",
    "is_out_of_memory",
]


def backend_of(device: str | torch.device) -> Backend:
    """The interface to a device, by torch's name for it; a number left out is 0."""
    return _by_name(str(device))


def autocast_kinds() -> tuple[str, ...]:
    """Kinds of devices whose autocast code may turn on: the accelerator's, and those that always have one."""
    kind = torch.accelerator.current_accelerator()
    return tuple(dict.fromkeys([CPU, CUDA, *([kind.type] if kind else [])]))


def accelerator_in_use() -> AcceleratorBackend | None:
    """An accelerator, if this process has used any; finding out uses none."""
    kind = torch.accelerator.current_accelerator()
    backend = None if kind is None else backend_of(torch.device(kind.type, 0))
    if not isinstance(backend, AcceleratorBackend) or not backend.in_use():
        return None
    return backend


@cache
def _by_name(name: str) -> Backend:
    device = torch.device(name)
    if device.type == CPU:
        return CpuBackend(device)
    device = torch.device(device.type, device.index or 0)
    return _CLASSES.get(device.type, AcceleratorBackend)(device)


_CLASSES = {CUDA: CudaBackend, MPS: MpsBackend}
