"""Accelerators of this machine, read from the CUDA driver: the command process does not import torch."""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from runner.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.manifest.schema import Budget


@dataclass(frozen=True)
class Accelerator:
    name: str
    memory: int
    """Bytes."""
    uuid: str = ""
    """Identifies the card, whatever its number on this machine."""


@cache
def accelerators() -> tuple[Accelerator, ...]:
    """The CUDA devices that a worker sees, in their order; ``CUDA_VISIBLE_DEVICES`` is honoured."""
    driver = _driver()
    if driver is None or driver.cuInit(0) != 0:
        return ()
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe(driver, n) for n in range(count.value))


def choose_device(budget: Budget, found: Sequence[Accelerator] | None = None) -> str:
    """The torch device for a budget: ``auto`` is the accelerator if there is one.

    ``found`` are the accelerators of the machine; this machine's if left out.

    Raises:
        BudgetError: the device is not here, or a VRAM budget is given and there is no accelerator.

    """
    wanted = budget.device
    if wanted == "cpu":
        return "cpu"
    found = accelerators() if found is None else found
    if wanted == "auto":
        if found:
            return "cuda:0"
        if budget.vram is not None:
            raise BudgetError(
                "the budget gives vram, and this machine has no accelerator (or no driver for it); "
                "to run on the CPU all the same, slowly: --set budget.device=cpu"
            )
        return "cpu"
    number = int(wanted.partition(":")[2] or 0)
    if number >= len(found):
        here = f"{len(found)} of them" if found else "no accelerator, or no driver for it"
        raise BudgetError(f"the budget's device is {wanted}, and this machine has {here}")
    return f"cuda:{number}"


def _driver() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("cuda") or "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _describe(driver: ctypes.CDLL, number: int) -> Accelerator:
    device, size, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    uuid = ctypes.create_string_buffer(16)
    driver.cuDeviceGetUuid(uuid, device)
    return Accelerator(name.value.decode(), size.value, uuid.raw.hex())
