"""The engine's interface to a device."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUT_OF_MEMORY = re.compile(
    r"out of memory|ALLOC_FAILED|OUT_OF_(HOST|DEVICE)_MEMORY|DefaultCPUAllocator", re.IGNORECASE
)
"""Out-of-memory messages of drivers, cuBLAS, cuDNN and the CPU's allocator: they are plain RuntimeErrors."""


class DeviceLostError(Exception):
    """The device failed, and this process can no longer use it; another process may."""


class Backend(ABC):
    """A device; ``backend_of`` gives it. Sizes are bytes."""

    tokens_to_measure: int
    """Rows of a matrix product that are enough for the device's full speed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def name(self) -> str:
        """The model of the device, as results depend on it."""

    @abstractmethod
    def check(self) -> None:
        """Make it usable in this process.

        Raises:
            BudgetError: the torch that is installed has no support for it, or it is not here.

        """

    @abstractmethod
    def survives_fork(self) -> bool:
        """Whether this process, which was forked, can use it: its first use is tried."""

    @abstractmethod
    def make_current(self) -> None:
        """Make it this thread's current device, for torch and libraries."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all of its queued work is done.

        Raises:
            torch.AcceleratorError: some of the work failed.

        """

    @abstractmethod
    def limit_memory(self, limit: int | None) -> None:
        """Limit what torch's allocator may reserve; None for no limit."""

    @abstractmethod
    def reserved_peak(self) -> int | None:
        """The most that torch's allocator has reserved; None on the CPU."""

    @abstractmethod
    def process_memory(self) -> int | None:
        """Bytes of the device that this process holds, as its driver reports; None where it does not."""

    @abstractmethod
    def generators(self) -> Sequence[torch.Generator]:
        """The default random generators of all devices of this kind; none for the CPU."""

    @abstractmethod
    def generator(self) -> torch.Generator | None:
        """The default random generator of this device; None for the CPU, whose is torch's own."""

    @abstractmethod
    def is_lost(self, error: BaseException) -> bool:
        """Whether the device itself failed (error raised or pending), not only the code that ran on it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a device or in RAM."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
