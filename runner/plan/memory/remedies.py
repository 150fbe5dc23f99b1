"""The nearest changes to a manifest that would make a stage fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.units import format_size, in_quarters
from runner.plan.memory.candidates import candidates
from runner.plan.memory.need import Need, need_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.model.shapes import ComponentShapes
    from runner.plan.memory.candidates import Candidate
    from runner.plan.memory.limits import Limits
    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage

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
    more = [
        f'{peak.kind.lower()} = "{in_quarters(peak.size, up=True)}"'
        for peak in least.peaks(limits)
        if peak.lack
    ]
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


def _first_fit(need: Need, limits: Limits) -> Candidate | None:
    return next((c for c in candidates(need, limits, None) if c.fits(limits)), None)
