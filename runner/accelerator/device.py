"""An accelerator as this machine has it: its name for torch, memory, and the UUID that identifies it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """An accelerator of this machine."""

    kind: str
    """torch's name for its kind: ``"cuda"``, ``"xpu"``, ``"mps"``, ``"sim"``."""
    index: int
    """Its number among those of its kind that torch sees."""
    name: str
    memory: int
    """Bytes that programs may use."""
    uuid: str = ""
    """Tells it from other devices, whatever its number; empty where the driver has none."""
    context: int | None = None
    """Bytes of its memory that a process holds before its first tensor; None if not measured."""

    @property
    def id(self) -> str:
        """Torch's name for it."""
        return f"{self.kind}:{self.index}"
