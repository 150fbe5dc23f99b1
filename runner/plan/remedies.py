"""The nearest changes to a manifest that would make a stage fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.plan.candidates import fastest_that_fits
from runner.units import MIB, format_size, in_quarters, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.plan.limits import Limits
    from runner.plan.placement_option import Peak
    from runner.plan.stage_plan import StagePlan

SLOWER = 1.5
"""Slowdown of another dtype from which on a remedy mentions it."""
LESS_MEMORY = "less_memory"
"""Key in a parameter's ``json_schema_extra``: values that need less memory, the mildest first."""


def remedies(plan: StagePlan) -> Iterator[str]:
    """Changes that would each make the stage fit on this machine, the mildest first."""
    limits, table = plan.limits, plan.stage.table
    if table.placement != "auto" or table.device_map is not None:
        other = fastest_that_fits(plan.need, limits)
        if other is not None:
            without = " without a device_map" if table.device_map is not None else ""
            yield f'placement = "auto"{without}, which takes {other.placement}'
    for name, value in tunables(plan.stage):
        changed = plan.requirements_with(changed={name: value})
        if fastest_that_fits(changed, limits, table) is not None:
            place = "[with]" if plan.stage.path_of(name)[0] == "with" else "[stage.with]"
            yield f"{name} = {value!r} in {place} (activations {format_size(changed.activations)})"
            break
    if table.dtype == "float32":
        halved = plan.requirements_with(dtype="bfloat16")
        if fastest_that_fits(halved, limits, table) is not None:
            slower = limits.speed("float32") / limits.speed("bfloat16")
            slow = f", and {slower:.0f} times slower on this CPU" if slower >= SLOWER else ""
            yield f'dtype = "bfloat16" (other low bits{slow})'
    more = larger_budget(plan.chosen.peaks(limits), limits)
    if more:
        yield f"a budget of {more}"


def larger_budget(peaks: Sequence[Peak], limits: Limits) -> str:
    """The budget that would be enough, as ``ram = "1.75GiB"``; empty if this machine has less."""
    more = []
    for peak in peaks:
        if peak.lack:
            size = _as_a_budget(peak.size, limits.most.get(peak.kind))
            if size is None:
                return ""
            more.append(f'{peak.kind.lower()} = "{size}"')
    return " and ".join(more)


def _as_a_budget(size: int, most: int | None) -> str | None:
    """A size rounded up to 0.25 GiB, or to 1 MiB if that is beyond ``most``; None if both are."""
    rounded = in_quarters(size, up=True)
    if most is None or parse_size(rounded) <= most:
        return rounded
    exact = f"{-(-size // MIB)}MiB"
    return exact if parse_size(exact) <= most else None


def tunables(stage: PipelineStage) -> Iterator[tuple[str, Any]]:
    """Pairs of a parameter and a value that the plugin declares as needing less memory."""
    if stage.params is None:
        return
    for name, field in stage.params.model_fields.items():
        extra = field.json_schema_extra
        values: Any = extra.get(LESS_MEMORY, ()) if isinstance(extra, dict) else ()
        for value in values:
            yield name, value
