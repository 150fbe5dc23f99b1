"""The memory that this worker holds, as its last event reports it."""

from __future__ import annotations

import os
from typing import TypedDict

from runner.accelerator.backends import backend_of
from runner.machine.ram import ram_of


class MemoryHeld(TypedDict):
    """Bytes; see :class:`runner.events.Failed` for each."""

    ram: int | None
    vram: int | None
    vram_reserved: int | None


def memory_held(device: str) -> MemoryHeld:
    """What this process holds now of RAM and of a device's memory, and has reserved of the latter at most."""
    backend = backend_of(device)
    return {
        "ram": ram_of(os.getpid()),
        "vram": backend.process_memory(),
        "vram_reserved": backend.reserved_peak(),
    }
