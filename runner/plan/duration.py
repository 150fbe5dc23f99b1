"""The expected time of a stage, and the measurement or estimate that it is based on."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from runner.machine.timings import add_measured, measured
from runner.placements import RESIDENT, STREAM
from runner.plan.learned import OPERATION, from_runs, key_of, measured_work, work_of
from runner.plan.throughput import pass_time_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.plan.stage_plan import StagePlan

START = 5.0  # seconds until a worker has imported its code, before a run has measured it


@dataclass(frozen=True)
class Duration:
    """The expected time of a stage."""

    seconds: float | None
    """None if not known."""
    basis: str
    """What the time is estimated from, in words."""


def duration_of(plan: StagePlan, items: Collection[str]) -> Duration:
    """The expected time of a stage for some of its items, given by their ids."""
    if not items:
        return Duration(0.0, "nothing to do")
    works = [work_of(plan.need, item) for item in items]
    unit = works[0][1]
    found = measured_work(plan.stage, plan.need, plan.limits, unit)
    if found is None and unit != OPERATION:
        return Duration(None, "not known before its first run")
    each = found.seconds if found else 1 / plan.limits.speed(plan.need.dtype)
    basis = from_runs(found) if found else plan.limits.basis
    computing = [work * each for work, _ in works]
    return Duration(_start(plan) + _loading(plan) + _running(plan, computing), basis)


def learn(plan: StagePlan, seconds: Mapping[str, float], beside: float | None) -> None:
    """Record what a run measured: ``seconds`` by item; ``beside``: the stage's seconds outside of items."""
    if any(placed.on_demand for placed in plan.chosen.components):
        return  # loading weights is part of the items' time
    if plan.chosen.placement not in (RESIDENT, STREAM) or not seconds:
        return
    works = {item: work_of(plan.need, item) for item in seconds}
    unit = next(iter(works.values()))[1]
    paces = [seconds[item] / work for item, (work, found) in works.items() if found == unit]
    add_measured(key_of(plan.stage, plan.need, plan.limits, f"seconds by {unit}"), median(paces))
    if beside is not None:
        start = max(0.01, beside - _loading(plan))
        add_measured(key_of(plan.stage, plan.need, plan.limits, "seconds to start"), start)


def _running(plan: StagePlan, computing: list[float]) -> float:
    """Seconds of all items: streamed weights are loaded while a group of items computes."""
    pass_time, group = pass_time_of(plan.chosen.components, 1, plan.need, plan.limits), plan.chosen.group
    loading = (pass_time.disk + pass_time.bus) * max(1, plan.need.item.passes)
    if plan.chosen.placement != STREAM:
        return sum(computing) + loading * len(computing)
    groups = (computing[at : at + group] for at in range(0, len(computing), group))
    return sum(max(sum(each), loading) for each in groups)


def _loading(plan: StagePlan) -> float:
    """Seconds to read the weights that stay on the device."""
    moving = sum(placed.read for placed in plan.chosen.components)
    stored = sum(placed.shapes.stored_bytes for placed in plan.chosen.components)
    return max(0, stored - moving) / plan.limits.disk_read


def _start(plan: StagePlan) -> float:
    found = measured(key_of(plan.stage, plan.need, plan.limits, "seconds to start"))
    return found.seconds if found else START


def in_all(durations: Collection[Duration]) -> float | None:
    """Seconds of several stages together; None if one is not known."""
    known = [duration.seconds for duration in durations if duration.seconds is not None]
    return sum(known) if len(known) == len(durations) else None
