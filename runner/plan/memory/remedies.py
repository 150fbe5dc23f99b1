"""The nearest changes to a manifest that would make a stage fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.units import format_size
from runner.plan.memory.candidates import candidates
from runner.plan.memory.need import Need, need_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.model.shapes import ComponentShapes
    from runner.plan.memory.candidates import Candidate
    from runner.plan.memory.limits import Limits
    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage

STEP = 1 << 28  # budgets are proposed in quarters of a GiB
LESS_MEMORY = "less_memory"
"""A parameter's ``json_schema_extra`` key: values that need less memory, the mildest first."""


def remedies(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Sequence[ComponentShapes],
    need: Need,
    limits: Limits,
    least: Candidate,
) -> Iterator[str]:
    """Changes that would fit, each alone, the mildest first."""
    if stage.table.placement != "auto":
        other = _first_fit(need, limits)
        if other is not None:
            yield f'placement = "auto", which takes {other.placement}'
    for name, value in knobs(stage):
        changed = need_of(pipeline, stage, shapes, limits.device, changed={name: value})
        if _first_fit(changed, limits) is not None:
            yield f"{name} = {value!r} in [stage.with] (activations {format_size(changed.activations)})"
            break
    if stage.table.dtype == "float32":
        halved = need_of(pipeline, stage, shapes, limits.device, dtype="bfloat16")
        if _first_fit(halved, limits) is not None:
            yield 'dtype = "bfloat16" (other low bits)'
    more = []
    for kind, lack, peak in zip(("vram", "ram"), least.lacks(limits), (least.vram, least.ram), strict=True):
        if lack:
            rounded = -(-(peak or 0) // STEP) * STEP
            more.append(f'{kind} = "{rounded / (1 << 30):g}GiB"')
    yield f"a budget of {' and '.join(more)}"


def knobs(stage: PipelineStage) -> Iterator[tuple[str, Any]]:
    """Parameters of the stage with values that its plugin names as needing less memory."""
    if stage.params is None:
        return
    for name, field in stage.params.model_fields.items():
        extra = field.json_schema_extra
        values: Any = extra.get(LESS_MEMORY, ()) if isinstance(extra, dict) else ()
        for value in values:
            yield name, value


def _first_fit(
    need: Need, limits: Limits, own_map: Mapping[str, str | int] | None = None
) -> Candidate | None:
    return next((c for c in candidates(need, limits, own_map) if c.fits(limits)), None)
