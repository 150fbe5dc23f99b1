"""Chooses the placement of a stage: the fastest that fits, else the one that exceeds its limits least."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.errors import BudgetError
from runner.placements import MODEL_OFFLOAD, RESIDENT, STREAM
from runner.plan.candidates import candidates, lowest
from runner.plan.device_map import check_map
from runner.plan.dtypes import float32_instead
from runner.plan.learned import learned
from runner.plan.limits import Limits, limits_of
from runner.plan.measured import measured
from runner.plan.misfit import misfit_of
from runner.plan.reasons import reasons_for
from runner.plan.requirements import MemoryRequirements, measurements, requirements_of
from runner.plan.stage_plan import StagePlan
from runner.plan.throughput import FEW_PASSES, pass_time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.machine.describe import Machine
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.placement_option import PlacementOption

AUTO = "auto"


def plan_stages(
    pipeline: Pipeline,
    stages: Sequence[PipelineStage],
    shapes: Callable[[PipelineStage], Sequence[ComponentShapes]],
    machine: Machine | None = None,
) -> list[StagePlan]:
    """Plan several stages. What their plugins measure is measured in one process.

    Raises:
        RunnerError: as :func:`plan_stage`.

    """
    wanted = []
    for stage in stages:
        device = limits_of(stage.budget, machine).device
        wanted += measurements(pipeline, stage, shapes(stage), device)
    measured(wanted)  # into the cache, where the plans find them
    return [plan_stage(pipeline, stage, shapes(stage), machine=machine) for stage in stages]


def plan_stage(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Sequence[ComponentShapes],
    limits: Limits | None = None,
    machine: Machine | None = None,
) -> StagePlan:
    """Choose a stage's placement from the shapes of its components.

    ``limits`` default to those of the stage's budget and of this machine.

    Raises:
        BudgetError: the manifest sets a placement that the device does not have.
        ManifestError: a name in the device map matches no weight, or several.
        PluginError: the activation formula fails.

    """
    rated = limits or limits_of(stage.budget, machine)
    need = requirements_of(pipeline, stage, shapes, rated.device, rated.overheads)
    limits = learned(stage, need, rated) if limits is None else limits
    check_map(pipeline, stage, need)
    # streaming that is set explicitly, without a budget, is meant to hold little: it does not fill the memory
    budget = stage.budget.ram if limits.on_cpu else stage.budget.vram
    fill = budget is not None or stage.table.placement != STREAM
    known = list(candidates(need, limits, stage.table.device_map, fill=fill))
    allowed = _allowed(stage, known, need, limits)
    if need.retaining and fill:
        allowed = _with_retained_memory(stage, allowed, need.retaining, limits)
    fitting = [candidate for candidate in allowed if candidate.fits(limits)]
    chosen = fitting[0] if fitting else min(allowed, key=lambda c: c.lack(limits))
    pass_time = pass_time_of(chosen.components, chosen.group, need, limits)
    reasons = reasons_for(stage, limits, chosen, known, pass_time)
    last = lowest(need, limits) if stage.table.device_map is None else None
    lower = _lower(chosen, [*known, last] if last else known)
    plan = StagePlan(pipeline, stage, tuple(shapes), need, limits, chosen, pass_time, reasons, lower)
    misfit = "" if fitting else misfit_of(plan)
    return replace(plan, misfit=misfit, faster=float32_instead(plan, rated))


def _allowed(
    stage: PipelineStage, known: list[PlacementOption], need: MemoryRequirements, limits: Limits
) -> list[PlacementOption]:
    """The placements that the manifest allows: all for "auto", else the one that it sets."""
    wanted = stage.table.placement
    if wanted == AUTO or not need.shapes:
        return known
    found = [candidate for candidate in known if candidate.placement == wanted]
    if found:
        return found
    if wanted == MODEL_OFFLOAD and not limits.on_cpu:  # a single component has nothing to take turns with
        return [candidate for candidate in known if candidate.placement == RESIDENT]
    names = ", ".join(candidate.placement for candidate in known)
    device = "the CPU" if limits.on_cpu else "an accelerator"
    raise BudgetError(
        f"stage '{stage.name}': placement '{wanted}' is not available on {device}"
        f"{' with a device_map' if stage.table.device_map else ''}; there are: {names}"
    )


def _with_retained_memory(
    stage: PipelineStage, allowed: list[PlacementOption], need: MemoryRequirements, limits: Limits
) -> list[PlacementOption]:
    """Each placement twice: first with freed memory retained, which computes up to 1.5 times as fast.

    The first is left out where it leaves room for fewer items in lockstep and that costs more: in a text
    encoder, whose only pass all items should share, and where the weights would be waited for.
    """
    retaining = _allowed(stage, list(candidates(need, limits, stage.table.device_map)), need, limits)
    found = []
    for kept, plain in zip(retaining, allowed, strict=True):
        as_many = kept.group == plain.group
        if as_many or (need.item.passes > FEW_PASSES and _is_hidden(kept, need, limits)):
            found.append(kept)
        found.append(plain)
    return found


def _is_hidden(candidate: PlacementOption, need: MemoryRequirements, limits: Limits) -> bool:
    """Whether loading the weights is hidden behind the computation."""
    return pass_time_of(candidate.components, candidate.group, need, limits).bound == "compute"


def _lower(chosen: PlacementOption, known: list[PlacementOption]) -> tuple[PlacementOption, ...]:
    """Placements that hold less on the device that computes; the one that holds most comes first."""

    def held(candidate: PlacementOption) -> int:
        return candidate.ram if candidate.vram is None else candidate.vram

    def is_chosen(candidate: PlacementOption) -> bool:  # whether or not it retains freed memory
        return (candidate.placements, candidate.group) == (chosen.placements, chosen.group)

    less = [c for c in known if held(c) < held(chosen) and not is_chosen(c)]
    return tuple(sorted(less, key=held, reverse=True))
