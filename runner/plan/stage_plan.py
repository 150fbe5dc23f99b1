"""The plan of one stage: its placement, with the reasons and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.errors import BudgetError
from runner.plan.requirements import MemoryRequirements, requirements_of
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.limits import Limits
    from runner.plan.placement_option import PlacementOption
    from runner.plan.throughput import PassTime


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
    """What float32 changes for a stage in half precision."""

    part: float
    """Time, as a part of the present time."""
    more: int
    """Additional bytes of RAM."""

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


@dataclass(frozen=True)
class StagePlan:
    """The placement of one stage, why it was chosen, and the placements that hold less."""

    pipeline: Pipeline
    stage: PipelineStage
    shapes: tuple[ComponentShapes, ...]
    """Of all components of the stage."""
    need: MemoryRequirements
    limits: Limits
    chosen: PlacementOption
    """The fastest placement that fits; the one that lacks least if none does."""
    pass_time: PassTime
    reasons: Mapping[str, str]
    """For each component with weights, by name: why it is placed so, in one sentence."""
    lower: tuple[PlacementOption, ...] = ()
    """Placements to retry with after running out of memory; each holds less than the one before."""
    misfit: str = ""
    """Why nothing fits, and the nearest changes that would; empty if the chosen placement fits."""
    faster: Faster | None = None
    """What float32 would change; None where it is not faster, or does not fit."""

    @property
    def allocatable(self) -> int | None:
        """Bytes that the allocator may reserve on the device: the limit without the device's context."""
        return None if self.limits.vram is None else max(0, self.limits.vram - self.limits.overheads.context)

    def check(self) -> None:
        """Raise if the stage does not fit.

        Raises:
            BudgetError: no placement fits; the message has the arithmetic.

        """
        if self.misfit:
            raise BudgetError(self.misfit)

    def requirements_with(
        self, *, dtype: str | None = None, changed: Mapping[str, Any] | None = None
    ) -> MemoryRequirements:
        """What the stage would need with another dtype, or with ``changed`` parameters."""
        return requirements_of(
            self.pipeline,
            self.stage,
            self.shapes,
            self.limits.device,
            self.limits.overheads,
            dtype=dtype,
            changed=changed,
        )
