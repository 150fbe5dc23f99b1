"""The time of a pass over the weights, its bottleneck, and how many items should share a pass."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.plan.component_placement import PlacedComponent
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

MIN_GROUP = 4  # items of a group: rates are estimates at best, and a few more items cost little
FEW_PASSES = 2  # such as those of a text encoder
MAX_GROUP = 256  # items of a group: more would save next to nothing


@dataclass(frozen=True)
class PassTime:
    """Estimated seconds of one pass over the weights: to read, to copy, and to compute with them."""

    disk: float
    bus: float
    compute: float | None
    """None if the plugin's formula gives no tokens."""

    @property
    def bound(self) -> str:
        """The bottleneck of a pass: ``"disk"``, ``"bus"`` or ``"compute"``."""
        parts = {"disk": self.disk, "bus": self.bus, "compute": self.compute or 0.0}
        return max(parts, key=lambda name: parts[name])


def pass_time_of(
    components: Sequence[PlacedComponent], group: int, need: MemoryRequirements, limits: Limits
) -> PassTime:
    """The pass time of placed components for a group of items, from the speeds in ``limits``."""
    read = sum(placed.read for placed in components)
    moved = sum(placed.moved for placed in components)
    compute = None
    if need.item.tokens:
        compute = 2 * need.parameters * need.item.tokens * group / limits.speed(need.dtype)
    return PassTime(read / limits.disk_read, 0.0 if limits.on_cpu else moved / limits.bus, compute)


def group_size(need: MemoryRequirements, limits: Limits, room: int) -> int:
    """The smallest group that hides the transfer behind the compute, as far as ``room`` (bytes) allows.

    A parameter takes two operations per token, and its bytes must be read once per pass: so the number of
    tokens in the group decides. Stages of one or two passes, such as text encoders, take all items at once.
    """
    itemsize = 4 if need.dtype == "float32" else 2
    tokens = limits.speed(need.dtype) / limits.disk_read * itemsize / 2
    wanted = max(MIN_GROUP, ceil(tokens / need.item.tokens)) if need.item.tokens else MAX_GROUP
    if 0 < need.item.passes <= FEW_PASSES:
        wanted = MAX_GROUP
    fitting = 1 + room // need.suspended if need.suspended else MAX_GROUP
    return max(1, min(wanted, fitting, need.items, MAX_GROUP))
