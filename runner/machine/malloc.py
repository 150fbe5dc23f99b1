"""Settings of glibc's malloc: whether freed memory goes back to the system or is retained for reuse.

If it goes back at once, a worker holds its tensors and at most 12 MiB more. But the system clears each page
that it hands out again, which takes longer than small layers compute: a stage takes 1.3 to 1.7 times as long
(FLUX's blocks in bfloat16 on a CPU with AMX). If it is retained, a worker holds the gaps between tensors too.
"""

from __future__ import annotations

import ctypes
import sys

from runner.units import MIB

ENVIRONMENT = {
    # freed memory goes back to the system: the true peak plus 12 MiB, not plus 121
    "MALLOC_MMAP_THRESHOLD_": str(MIB),
    # small pieces are joined at once: those kept aside would lie between what could be used again
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
"""Environment variables of workers: weights are loaded with these settings."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
LARGEST_RETAINED = 16 * MIB  # larger tensors go back to the system: gaps of their size would cost too much
MOST_ON_TOP = 128 * MIB  # freed memory at the end of the heap

# Bounds of retained memory. Measured with FLUX's blocks at 256 to 800 pixels: 0.6 to 1.0 times activations,
# at most 205 MiB; around a waiting item, 1.6 times its tensors; at 1024 pixels (only large tensors), nothing.
MOST, AROUND_WAITING = 224 * MIB, 2.0


def retain_freed_memory() -> None:
    """Retain freed memory from now on. Called after the weights are loaded: the heap has activations only."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_RETAINED)
        libc.mallopt(M_TRIM_THRESHOLD, MOST_ON_TOP)
        libc.mallopt(
            M_ARENA_MAX, 1
        )  # one heap for all threads: each further one would retain gaps of its own


def retained(activations: int) -> int:
    """Upper bound of the bytes retained beside the activations of one item."""
    return min(activations, MOST)


def retained_around_waiting(suspended: int) -> int:
    """Upper bound of the bytes retained around the tensors of an item that waits."""
    return int(AROUND_WAITING * min(suspended, LARGEST_RETAINED))
