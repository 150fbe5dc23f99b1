"""Pinned RAM of exactly the requested size, rounded up to whole pages."""

from __future__ import annotations

import ctypes
import mmap
import weakref
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

OUT_OF_MEMORY = 2  # of the CUDA and HIP runtimes' error numbers


def registered(
    size: int,
    register: Callable[[int, int], int],
    unregister: Callable[[int], int],
    synchronize: Callable[[], None],
) -> torch.Tensor | None:
    """Bytes in pages of their own, pinned by a runtime's functions; None where the runtime cannot.

    ``register(address, size)`` and ``unregister(address)`` return the runtime's error numbers, 0 for none.
    The pages are released with the last tensor that lies in them, after the device has finished its copies
    (``synchronize``).

    Raises:
        MemoryError: the system refuses to pin so many.

    """
    # private, else a fork would share them; whole pages, for two registrations cannot share one
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # a finalizer of the pages themselves would run after they are unmapped
    owner = (ctypes.c_uint8 * len(pages)).from_buffer(pages)
    memory = torch.frombuffer(owner, dtype=torch.uint8)
    failed = register(memory.data_ptr(), len(pages))
    if failed == OUT_OF_MEMORY:
        raise MemoryError(f"{size} bytes of RAM cannot be pinned for the device (error {failed})")
    if failed:
        return None
    weakref.finalize(owner, _release, memory.data_ptr(), unregister, synchronize).atexit = False
    return memory


def _release(address: int, unregister: Callable[[int], int], synchronize: Callable[[], None]) -> None:
    try:
        synchronize()
    finally:
        unregister(address)
