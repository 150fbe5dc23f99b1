"""Speeds of stages measured in earlier runs on this machine, and the work that they relate to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.machine.timings import Measured, measured, timing_key

if TYPE_CHECKING:
    from runner.pipeline.stage import PipelineStage
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

OPERATION, BYTE, ITEM = "operation", "byte", "item"
"""Units of an item's work: the first that the plugin's formula gives. Bytes are those of activations."""


def work_of(need: MemoryRequirements, item: str) -> tuple[float, str]:
    """The amount of work of an item, and its unit."""
    activations = need.each[item]
    operations = activations.operations or 2 * need.parameters * activations.tokens * max(
        1, activations.passes
    )
    if operations:
        return float(operations), OPERATION
    return (float(activations.peak), BYTE) if activations.peak else (1.0, ITEM)


def learned(stage: PipelineStage, need: MemoryRequirements, limits: Limits) -> Limits:
    """The limits with the speed of this stage that runs here have measured, if any has."""
    found = measured_work(stage, need, limits, OPERATION)
    if found is None:
        return limits
    speed = 1 / found.seconds / (limits.cores if limits.on_cpu else 1)
    return replace(limits, measured={**limits.measured, need.dtype: speed}, basis=from_runs(found))


def measured_work(
    stage: PipelineStage, need: MemoryRequirements, limits: Limits, unit: str
) -> Measured | None:
    """Seconds per ``unit`` of work that runs here have measured for this stage; None if none has."""
    return measured(key_of(stage, need, limits, f"seconds by {unit}"))


def key_of(stage: PipelineStage, need: MemoryRequirements, limits: Limits, what: str) -> str:
    """The key of a measurement of this stage, device and dtype; ``what`` is measured."""
    return timing_key(limits.device, limits.cores, stage.spec.name, need.dtype, what)


def from_runs(found: Measured) -> str:
    return f"from {found.runs} run{'' if found.runs == 1 else 's'} here"
