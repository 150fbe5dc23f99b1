"""The nearest changes to a manifest that would make a stage fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.plan.candidates import candidates
from runner.plan.requirements import MIB, MemoryRequirements, requirements_of
from runner.units import format_size, in_quarters, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.candidates import Peak, PlacementOption
    from runner.plan.limits import Limits

SLOWER = 1.5
"""How many times slower another dtype must compute for that to be told."""
LESS_MEMORY = "less_memory"
"""A parameter's ``json_schema_extra`` key: values that need less memory, the mildest first."""


def remedies(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Sequence[ComponentShapes],
    need: MemoryRequirements,
    limits: Limits,
    least: PlacementOption,
) -> Iterator[str]:
    """Changes that would fit on this machine, each alone, the mildest first."""
    device_map = stage.table.device_map
    if stage.table.placement != "auto" or device_map is not None:
        other = _first_fit(need, limits)
        if other is not None:
            without = " without a device_map" if device_map is not None else ""
            yield f'placement = "auto"{without}, which takes {other.placement}'
    for name, value in tunables(stage):
        changed = requirements_of(pipeline, stage, shapes, limits.device, changed={name: value})
        if _first_fit(changed, limits, stage) is not None:
            yield f"{name} = {value!r} in [stage.with] (activations {format_size(changed.activations)})"
            break
    if stage.table.dtype == "float32":
        halved = requirements_of(pipeline, stage, shapes, limits.device, dtype="bfloat16")
        if _first_fit(halved, limits, stage) is not None:
            slower = limits.speed("float32") / limits.speed("bfloat16")
            slow = f", and {slower:.0f} times slower on this CPU" if slower >= SLOWER else ""
            yield f'dtype = "bfloat16" (other low bits{slow})'
    more = larger_budget(least.peaks(limits), limits)
    if more:
        yield f"a budget of {more}"


def larger_budget(peaks: Sequence[Peak], limits: Limits) -> str:
    """The budget that would be enough, ``ram = "1.75GiB"``; empty where this machine has less."""
    more = []
    for peak in peaks:
        if peak.lack:
            size = _as_a_budget(peak.size, limits.most.get(peak.kind))
            if size is None:
                return ""
            more.append(f'{peak.kind.lower()} = "{size}"')
    return " and ".join(more)


def _as_a_budget(size: int, most: int | None) -> str | None:
    """In quarters of a GiB, if the machine has that, else to the MiB; None if it has less."""
    rounded = in_quarters(size, up=True)
    if most is None or parse_size(rounded) <= most:
        return rounded
    exact = f"{-(-size // MIB)}MiB"
    return exact if parse_size(exact) <= most else None


def tunables(stage: PipelineStage) -> Iterator[tuple[str, Any]]:
    """Parameters of the stage with values that its plugin names as needing less memory."""
    if stage.params is None:
        return
    for name, field in stage.params.model_fields.items():
        extra = field.json_schema_extra
        values: Any = extra.get(LESS_MEMORY, ()) if isinstance(extra, dict) else ()
        for value in values:
            yield name, value


def _first_fit(
    need: MemoryRequirements, limits: Limits, stage: PipelineStage | None = None
) -> PlacementOption | None:
    """The fastest placement that fits; of those that the stage's table asks for, if it is given."""
    asked = stage.table.placement if stage else "auto"
    known = candidates(need, limits, stage.table.device_map if stage else None)
    return next((c for c in known if asked in ("auto", c.placement) and c.fits(limits)), None)
