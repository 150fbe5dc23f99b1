"""Which dtype a device computes fastest in: on many CPUs half precision is much slower than float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.plan.candidates import candidates
from runner.plan.requirements import requirements_of
from runner.plan.throughput import pace_of
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.candidates import PlacementOption
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

FLOAT32 = "float32"
WORTH_IT = 0.75  # of the time: more is not worth another dtype
FRACTIONS = {
    3 / 4: "three quarters",
    2 / 3: "two thirds",
    1 / 2: "half",
    1 / 3: "a third",
    1 / 4: "a quarter",
    1 / 5: "a fifth",
    1 / 6: "a sixth",
    1 / 8: "an eighth",
    1 / 10: "a tenth",
}


@dataclass(frozen=True)
class Faster:
    """Float32 in the place of a stage's half precision: the part of the time, and bytes of RAM more."""

    part: float
    more: int

    @property
    def time(self) -> str:
        """``a quarter of the time``."""
        return f"{FRACTIONS[min(FRACTIONS, key=lambda known: abs(known / self.part - 1))]} of the time"

    @property
    def memory(self) -> str:
        """``1.20 GiB more``."""
        return f"{format_size(abs(self.more))} {'more' if self.more >= 0 else 'less'}"

    def __str__(self) -> str:
        return f"float32 would take {self.time} and {self.memory}: this CPU is slow in half precision"


def part_of_time(limits: Limits, dtype: str) -> float:
    """What part of the time the same would take in float32, where computing is all that takes time."""
    return limits.speed(dtype) / limits.speed(FLOAT32)


def float32_instead(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Sequence[ComponentShapes],
    need: MemoryRequirements,
    limits: Limits,
    chosen: PlacementOption,
) -> Faster | None:
    """What float32 would change, where a stage computes in half precision on a CPU that is slow in it.

    None where it would not be much faster, or would not fit.
    """
    if not limits.on_cpu or need.dtype == FLOAT32 or part_of_time(limits, need.dtype) > WORTH_IT:
        return None
    wider = requirements_of(pipeline, stage, shapes, limits.device, dtype=FLOAT32)
    placement = stage.table.placement
    found = next(
        (
            candidate
            for candidate in candidates(wider, limits, stage.table.device_map)
            if candidate.fits(limits) and placement in ("auto", candidate.placement)
        ),
        None,
    )
    if found is None:
        return None
    part = part_of_time(limits, need.dtype)
    if need.item.tokens:
        part = _an_item(found, wider, limits) / _an_item(chosen, need, limits)
    return Faster(part, found.ram - chosen.ram) if part <= WORTH_IT else None


def _an_item(candidate: PlacementOption, need: MemoryRequirements, limits: Limits) -> float:
    """Seconds of a pass for each of the items that share it."""
    pace = pace_of(candidate.components, candidate.group, need, limits)
    return max(pace.disk, pace.compute or 0.0) / candidate.group
