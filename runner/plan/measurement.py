"""Describes what a child process measures: one item's parameters at a stage, with the model's facts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.manifest.params import validate
from runner.model.sources import find
from runner.pipeline.params import raw_params
from runner.plan.measured import Measurement, StageParameters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api import Measure, Sizes
    from runner.manifest.params import RawParams
    from runner.pipeline.binding import Pipeline, PipelineItem
    from runner.pipeline.stage import PipelineStage


def measurement(
    pipeline: Pipeline,
    stage: PipelineStage,
    item: PipelineItem,
    measure: Measure,
    sizes: Sizes,
    changed: Mapping[str, Any],
) -> Measurement:
    """One item's size at a stage; ``changed`` parameters take the place of the item's."""
    upstream = {
        name: _parameters(pipeline.stages[source.stage], item, {}) for name, source in stage.wires.items()
    }
    plugin, _ = pipeline.plugins.stages()[stage.spec.name]
    return Measurement(
        stage.name,
        (plugin.distribution, plugin.version),
        measure,
        _parameters(stage, item, changed),
        upstream,
        replace(sizes, folder=_folder(pipeline, stage)),
    )


def _parameters(stage: PipelineStage, item: PipelineItem, changed: Mapping[str, Any]) -> StageParameters:
    raw = raw_params(stage, item.params[stage.index])
    other = replace(raw, values={**raw.values, **changed})
    return StageParameters(stage.spec, stage.facts, other if changed and _accepts(stage, other) else raw)


def _accepts(stage: PipelineStage, raw: RawParams) -> bool:
    try:
        return stage.params is not None and validate(stage.params, raw) is not None
    except ValidationError:
        return False


def _folder(pipeline: Pipeline, stage: PipelineStage) -> Path | None:
    """The folder of the stage's model; None if it is not on this machine."""
    if stage.model is None:
        return None
    components = pipeline.components_of(stage.model)
    model = find(stage.model, pipeline.manifest.folder, pipeline.plugins, components)
    return model.folder if model else None
