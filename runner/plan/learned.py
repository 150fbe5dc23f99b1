"""What runs here have taught of a stage: how much its items compute, and how fast that was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.machine.timings import Measured, measured, timing_key

if TYPE_CHECKING:
    from runner.pipeline.stage import PipelineStage
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

OPERATION, BYTE, ITEM = "operation", "byte", "item"
"""What an item's work is counted in: the first that the plugin's formula tells; bytes are of activations."""


def work_of(need: MemoryRequirements, item: str) -> tuple[float, str]:
    """What an item has to compute: how much, and counted in what."""
    told = need.each[item]
    operations = told.operations or 2 * need.parameters * told.tokens * max(1, told.passes)
    if operations:
        return float(operations), OPERATION
    return (float(told.peak), BYTE) if told.peak else (1.0, ITEM)


def learned(stage: PipelineStage, need: MemoryRequirements, limits: Limits) -> Limits:
    """The limits with the speed at which this stage was measured to compute here, if it was."""
    found = measured_work(stage, need, limits, OPERATION)
    if found is None:
        return limits
    speed = 1 / found.seconds / (limits.cores if limits.on_cpu else 1)
    return replace(limits, measured={**limits.measured, need.dtype: speed}, basis=from_runs(found))


def measured_work(
    stage: PipelineStage, need: MemoryRequirements, limits: Limits, unit: str
) -> Measured | None:
    return measured(key_of(stage, need, limits, f"seconds by {unit}"))


def key_of(stage: PipelineStage, need: MemoryRequirements, limits: Limits, what: str) -> str:
    return timing_key(limits.device, limits.cores, stage.spec.name, need.dtype, what)


def from_runs(found: Measured) -> str:
    return f"from {found.runs} run{'' if found.runs == 1 else 's'} here"
