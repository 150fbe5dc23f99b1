"""A placement of every component of a stage, with its predicted memory peaks and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.placements import ComponentPlacement
    from runner.plan.component_placement import PlacedComponent
    from runner.plan.limits import Limits


@dataclass(frozen=True)
class Peak:
    """The predicted peak of a worker's "VRAM" or "RAM", which ``kind`` names."""

    kind: str
    parts: Mapping[str, int]
    """Bytes by what they are for, in words."""
    limit: int | None

    @property
    def size(self) -> int:
        return sum(self.parts.values())

    @property
    def lack(self) -> int:
        """Bytes beyond the limit."""
        return 0 if self.limit is None else max(0, self.size - self.limit)


@dataclass(frozen=True)
class PlacementOption:
    """A placement of every component, with its predicted peaks."""

    placement: str
    components: tuple[PlacedComponent, ...]
    ram_parts: Mapping[str, int]
    """Bytes of the RAM peak by what they are for, in words."""
    vram_parts: Mapping[str, int] | None = None
    """None on the CPU."""
    group: int = 1
    """Items that share one pass over streamed weights."""
    retains_freed_memory: bool = False
    """Whether the worker retains freed RAM for later allocations: faster, on the CPU."""

    @property
    def ram(self) -> int:
        return sum(self.ram_parts.values())

    @property
    def vram(self) -> int | None:
        return None if self.vram_parts is None else sum(self.vram_parts.values())

    @property
    def predicted(self) -> dict[str, int | None]:
        """Peaks in bytes of "vram" (None on the CPU) and "ram"."""
        return {"vram": self.vram, "ram": self.ram}

    def peaks(self, limits: Limits) -> list[Peak]:
        """Each peak with its limit; no VRAM on the CPU."""
        vram = [] if self.vram_parts is None else [Peak("VRAM", self.vram_parts, limits.vram)]
        return [*vram, Peak("RAM", self.ram_parts, limits.ram)]

    def lack(self, limits: Limits) -> int:
        """Bytes beyond the limits, of RAM and VRAM together."""
        return sum(peak.lack for peak in self.peaks(limits))

    def fits(self, limits: Limits) -> bool:
        return self.lack(limits) == 0

    @property
    def placements(self) -> dict[str, ComponentPlacement]:
        return {placed.shapes.component.name: placed.placement for placed in self.components}
