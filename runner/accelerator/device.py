"""What is known of an accelerator without using it."""

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
    """Tells it from all others, whatever its number here; empty where the driver does not say."""
    context: int | None = None
    """Bytes of its memory that a process holds before its first tensor; None where that was not measured."""

    @property
    def id(self) -> str:
        """Torch's name for it."""
        return f"{self.kind}:{self.index}"
