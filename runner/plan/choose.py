"""Choosing the placement of a stage: the fastest that fits, or what is missing and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import BudgetError
from runner.plan.candidates import PlacementOption, candidates, lowest
from runner.plan.dtypes import Faster, float32_instead
from runner.plan.learned import learned
from runner.plan.limits import Limits, limits_of
from runner.plan.own_map import check_map
from runner.plan.reasons import reasons_for
from runner.plan.remedies import remedies
from runner.plan.requirements import CUDA_CONTEXT, MemoryRequirements, requirements_of
from runner.plan.throughput import FEW_PASSES, PassTime, pace_of
from runner.protocol import MODEL_OFFLOAD, RESIDENT, STREAM
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.machine.capacity import Machine
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage

AUTO = "auto"


@dataclass(frozen=True)
class StagePlan:
    """The placement of one stage, why it is that one, and which ones hold less."""

    stage: PipelineStage
    need: MemoryRequirements
    limits: Limits
    chosen: PlacementOption
    pace: PassTime
    reasons: Mapping[str, str]
    """One sentence a component that has weights, by its name."""
    lower: tuple[PlacementOption, ...] = ()
    """What to go on with after running out of memory: each holds less than the one before."""
    misfit: str = ""
    """Why nothing fits, with the nearest changes that would; empty if the chosen placement fits."""
    faster: Faster | None = None
    """What float32 would change where that computes faster."""

    @property
    def allocatable(self) -> int | None:
        """Bytes that the allocator may reserve on the device: the limit without the CUDA context."""
        return None if self.limits.vram is None else max(0, self.limits.vram - CUDA_CONTEXT)

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            BudgetError: it does not; the message has the arithmetic.

        """
        if self.misfit:
            raise BudgetError(self.misfit)


def plan_stage(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Sequence[ComponentShapes],
    limits: Limits | None = None,
    machine: Machine | None = None,
) -> StagePlan:
    """Choose a stage's placement from the shapes of its components.

    ``limits`` are those of its budget and of the machine, by default this one, if no others are given.

    Raises:
        BudgetError: the manifest asks for a placement that the device does not have.
        ManifestError: its device map names what is not there.
        PluginError: the activation formula fails.

    """
    rated = limits or limits_of(stage.budget, machine)
    need = requirements_of(pipeline, stage, shapes, rated.device)
    limits = learned(stage, need, rated) if limits is None else limits
    check_map(pipeline, stage, need)
    # whoever asks for streaming and gives no budget wants little to be held, not all that the machine has
    budget = stage.budget.ram if limits.on_cpu else stage.budget.vram
    fill = budget is not None or stage.table.placement != STREAM
    known = list(candidates(need, limits, stage.table.device_map, fill=fill))
    asked = _asked(stage, known, need, limits)
    if need.keeping and fill:
        asked = _kept_first(stage, asked, need.keeping, limits)
    fitting = [candidate for candidate in asked if candidate.fits(limits)]
    chosen = fitting[0] if fitting else min(asked, key=lambda c: c.lack(limits))
    misfit = "" if fitting else _misfit(pipeline, stage, shapes, need, limits, chosen)
    pace = pace_of(chosen.components, chosen.group, need, limits)
    reasons = reasons_for(stage, limits, chosen, known, pace)
    last = lowest(need, limits) if stage.table.device_map is None else None
    lower = _lower(chosen, [*known, last] if last else known)
    faster = float32_instead(pipeline, stage, shapes, need, rated, chosen)
    return StagePlan(stage, need, limits, chosen, pace, reasons, lower, misfit, faster)


def _asked(
    stage: PipelineStage, known: list[PlacementOption], need: MemoryRequirements, limits: Limits
) -> list[PlacementOption]:
    wanted = stage.table.placement
    if wanted == AUTO or not need.shapes:
        return known
    asked = [candidate for candidate in known if candidate.placement == wanted]
    if not asked:
        if wanted == MODEL_OFFLOAD and not limits.on_cpu:  # of a single component: it is alone in its turn
            return [candidate for candidate in known if candidate.placement == RESIDENT]
        names = ", ".join(candidate.placement for candidate in known)
        device = "the CPU" if limits.on_cpu else "an accelerator"
        raise BudgetError(
            f"stage '{stage.name}': placement '{wanted}' is not to be had on {device}"
            f"{' with a device_map' if stage.table.device_map else ''}; there are: {names}"
        )
    return asked


def _kept_first(
    stage: PipelineStage, asked: list[PlacementOption], need: MemoryRequirements, limits: Limits
) -> list[PlacementOption]:
    """Each placement twice: first with freed memory kept, which computes as much as half faster.

    Not where it leaves room for fewer items in lockstep, and that costs more: in a text encoder, whose only
    pass all items should share, and where weights would be waited for.
    """
    keeping = _asked(stage, list(candidates(need, limits, stage.table.device_map)), need, limits)
    found = []
    for kept, plain in zip(keeping, asked, strict=True):
        as_many = kept.group == plain.group
        if as_many or (need.item.passes > FEW_PASSES and _is_hidden(kept, need, limits)):
            found.append(kept)
        found.append(plain)
    return found


def _is_hidden(candidate: PlacementOption, need: MemoryRequirements, limits: Limits) -> bool:
    """Whether weights come while others compute."""
    return pace_of(candidate.components, candidate.group, need, limits).bound == "compute"


def _lower(chosen: PlacementOption, known: list[PlacementOption]) -> tuple[PlacementOption, ...]:
    """Placements that hold less on the device that computes, most first."""

    def held(candidate: PlacementOption) -> int:
        return candidate.ram if candidate.vram is None else candidate.vram

    def is_chosen(candidate: PlacementOption) -> bool:  # but for the freed memory that it keeps
        return (candidate.placings, candidate.group) == (chosen.placings, chosen.group)

    less = [c for c in known if held(c) < held(chosen) and not is_chosen(c)]
    return tuple(sorted(less, key=held, reverse=True))


def _misfit(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Sequence[ComponentShapes],
    need: MemoryRequirements,
    limits: Limits,
    least: PlacementOption,
) -> str:
    lines = [f"stage '{stage.name}' does not fit, as {least.placement} (which needs least):"]
    for peak in least.peaks(limits):
        if peak.lack:
            needs, may = format_size(peak.size), format_size(peak.limit or 0)
            lack = f"{format_size(peak.lack)} of {peak.kind}"
            lines.append(f"  {lack} are missing: it needs {needs}, and may take {may}")
            lines += [f"    {format_size(size):>11}  {part}" for part, size in peak.parts.items() if size]
    lines += [f"  {note}" for note in limits.notes]
    changes = list(remedies(pipeline, stage, shapes, need, limits, least))
    lines += [f"  would fit: {change}" for change in changes]
    if not changes:
        needs = " and ".join(f"{format_size(p.size)} of {p.kind}" for p in least.peaks(limits) if p.lack)
        has = " and ".join(f"{format_size(size)} of {kind}" for kind, size in limits.most.items())
        lines.append(
            f"  no change is known that would fit here: {needs} is the least, and this machine has {has}"
        )
    return "\n".join(lines)
