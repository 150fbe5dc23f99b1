"""How long a stage takes: what its items compute, what comes for that, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from runner.machine.timings import Measured, add_measured, measured, timing_key
from runner.plan.throughput import pace_of
from runner.protocol import RESIDENT, STREAM

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.pipeline.stage import PipelineStage
    from runner.plan.choose import StagePlan
    from runner.plan.limits import Limits
    from runner.plan.requirements import Need

START = 5.0  # seconds of a worker until it has its code, before any was measured
OPERATION, BYTE, ITEM = "operation", "byte", "item"
"""What an item's work is counted in: the first that the plugin's formula tells; bytes are of activations."""


@dataclass(frozen=True)
class Duration:
    """Seconds that a stage is expected to take, None where that is not known, and what they are from."""

    seconds: float | None
    basis: str


def work_of(need: Need, item: str) -> tuple[float, str]:
    """What an item has to compute: how much, and counted in what."""
    told = need.each[item]
    operations = told.operations or 2 * need.parameters * told.tokens * max(1, told.passes)
    if operations:
        return float(operations), OPERATION
    return (float(told.peak), BYTE) if told.peak else (1.0, ITEM)


def learned(stage: PipelineStage, need: Need, limits: Limits) -> Limits:
    """The limits with the speed at which this stage was measured to compute here, if it was."""
    found = _measured_work(stage, need, limits, OPERATION)
    if found is None:
        return limits
    speed = 1 / found.seconds / (limits.cores if limits.on_cpu else 1)
    return replace(limits, measured={**limits.measured, need.dtype: speed}, basis=_from_runs(found))


def duration_of(plan: StagePlan, items: Collection[str]) -> Duration:
    """How long a stage takes for these items of its."""
    if not items:
        return Duration(0.0, "nothing to do")
    works = [work_of(plan.need, item) for item in items]
    unit = works[0][1]
    found = _measured_work(plan.stage, plan.need, plan.limits, unit)
    if found is None and unit != OPERATION:
        return Duration(None, "not known before its first run")
    each = found.seconds if found else 1 / plan.limits.speed(plan.need.dtype)
    basis = _from_runs(found) if found else plan.limits.basis
    computing = [work * each for work, _ in works]
    return Duration(_start(plan) + _loading(plan) + _running(plan, computing), basis)


def learn(plan: StagePlan, seconds: Mapping[str, float], beside: float | None) -> None:
    """Keep what a run measured: seconds by item, and those of the stage ``beside`` all of its items."""
    if any(placed.on_demand for placed in plan.chosen.components):
        return  # weights come within the items' own time
    if plan.chosen.placement not in (RESIDENT, STREAM) or not seconds:
        return
    works = {item: work_of(plan.need, item) for item in seconds}
    unit = next(iter(works.values()))[1]
    paces = [seconds[item] / work for item, (work, found) in works.items() if found == unit]
    add_measured(_key(plan.stage, plan.need, plan.limits, f"seconds by {unit}"), median(paces))
    if beside is not None:
        start = max(0.01, beside - _loading(plan))
        add_measured(_key(plan.stage, plan.need, plan.limits, "seconds to start"), start)


def _running(plan: StagePlan, computing: list[float]) -> float:
    """Seconds of all items: weights that are streamed come while a group of them computes."""
    pace, group = pace_of(plan.chosen.components, 1, plan.need, plan.limits), plan.chosen.group
    coming = (pace.disk + pace.bus) * max(1, plan.need.item.passes)
    if plan.chosen.placement != STREAM:
        return sum(computing) + coming * len(computing)
    groups = (computing[at : at + group] for at in range(0, len(computing), group))
    return sum(max(sum(each), coming) for each in groups)


def _loading(plan: StagePlan) -> float:
    """Seconds until the weights that stay are read."""
    moving = sum(placed.read for placed in plan.chosen.components)
    stored = sum(placed.shapes.stored_bytes for placed in plan.chosen.components)
    return max(0, stored - moving) / plan.limits.disk_read


def _start(plan: StagePlan) -> float:
    found = measured(_key(plan.stage, plan.need, plan.limits, "seconds to start"))
    return found.seconds if found else START


def _measured_work(stage: PipelineStage, need: Need, limits: Limits, unit: str) -> Measured | None:
    return measured(_key(stage, need, limits, f"seconds by {unit}"))


def _key(stage: PipelineStage, need: Need, limits: Limits, what: str) -> str:
    return timing_key(limits.device, limits.cores, stage.spec.name, need.dtype, what)


def _from_runs(found: Measured) -> str:
    return f"from {found.runs} run{'' if found.runs == 1 else 's'} here"


def in_all(durations: Collection[Duration]) -> float | None:
    """Seconds of several stages; None if that of one is not known."""
    known = [duration.seconds for duration in durations if duration.seconds is not None]
    return sum(known) if len(known) == len(durations) else None
