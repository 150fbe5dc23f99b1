"""When float32 is faster than half precision, as on many CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.plan.candidates import fastest_that_fits
from runner.plan.stage_plan import Faster
from runner.plan.throughput import pass_time_of

if TYPE_CHECKING:
    from runner.plan.limits import Limits
    from runner.plan.placement_option import PlacementOption
    from runner.plan.requirements import MemoryRequirements
    from runner.plan.stage_plan import StagePlan

FLOAT32 = "float32"
WORTH_IT = 0.75  # part of the time from which on another dtype is not worth proposing


def part_of_time(limits: Limits, dtype: str) -> float:
    """Time with float32 divided by the time with ``dtype``, where computing is the bottleneck."""
    return limits.speed(dtype) / limits.speed(FLOAT32)


def float32_instead(plan: StagePlan, limits: Limits) -> Faster | None:
    """What float32 would change, where a stage computes in half precision on a CPU that is slow in it.

    ``limits`` have the speeds of both dtypes from the same measurement: the plan's own may have a speed of
    one that was measured in runs. None where float32 would not be much faster, or would not fit.
    """
    need = plan.need
    if not limits.on_cpu or need.dtype == FLOAT32 or part_of_time(limits, need.dtype) > WORTH_IT:
        return None
    wider = plan.requirements_with(dtype=FLOAT32)
    found = fastest_that_fits(wider, limits, plan.stage.table)
    if found is None:
        return None
    part = part_of_time(limits, need.dtype)
    if need.item.tokens:
        part = _time_per_item(found, wider, limits) / _time_per_item(plan.chosen, need, limits)
    return Faster(part, found.ram - plan.chosen.ram) if part <= WORTH_IT else None


def _time_per_item(candidate: PlacementOption, need: MemoryRequirements, limits: Limits) -> float:
    """Seconds of a pass, divided by the items that share it."""
    pass_time = pass_time_of(candidate.components, candidate.group, need, limits)
    return max(pass_time.disk, pass_time.compute or 0.0) / candidate.group
