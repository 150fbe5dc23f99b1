"""How fast weights come and are computed with: what bounds a pass, and how many items should share one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.plan.component_placement import PlacedComponent
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

LEAST = 4  # items of a group: rates are estimates at best, and a few items more cost little
FEW_PASSES = 2  # as a text encoder makes
MOST = 256  # greenlets; what more of them would save is nothing beside one pass


@dataclass(frozen=True)
class PassTime:
    """Seconds of one pass over the weights, estimated: for bringing them, and for computing with them."""

    disk: float
    bus: float
    compute: float | None
    """None where the plugin's formula tells no tokens."""

    @property
    def bound(self) -> str:
        """What a pass waits for: ``"disk"``, ``"bus"`` or ``"compute"``."""
        parts = {"disk": self.disk, "bus": self.bus, "compute": self.compute or 0.0}
        return max(parts, key=lambda name: parts[name])


def pace_of(
    components: Sequence[PlacedComponent], group: int, need: MemoryRequirements, limits: Limits
) -> PassTime:
    """The pace of components so placed, with the rates that `doctor` measured where it did."""
    read = sum(placed.read for placed in components)
    moved = sum(placed.moved for placed in components)
    compute = None
    if need.item.tokens:
        compute = 2 * need.parameters * need.item.tokens * group / limits.speed(need.dtype)
    return PassTime(read / limits.disk_read, 0.0 if limits.on_cpu else moved / limits.bus, compute)


def group_size(need: MemoryRequirements, limits: Limits, room: int) -> int:
    """The smallest group that hides the transfer behind the compute, as far as ``room`` (bytes) goes.

    A weight takes two operations a token, whatever its size, and its bytes take their time: so it is tokens
    in flight that hide a transfer. Where a pass or two is all, as in a text encoder, all items share it.
    """
    itemsize = 4 if need.dtype == "float32" else 2
    tokens = limits.speed(need.dtype) / limits.disk_read * itemsize / 2
    wanted = max(LEAST, ceil(tokens / need.item.tokens)) if need.item.tokens else MOST
    if 0 < need.item.passes <= FEW_PASSES:
        wanted = MOST
    fitting = 1 + room // need.suspended if need.suspended else MOST
    return max(1, min(wanted, fitting, need.items, MOST))
