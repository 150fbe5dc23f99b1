"""Where a manifest names models and components from elsewhere, and whether they are written correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.manifest.loras import source_of
from runner.manifest.problems import did_you_mean
from runner.manifest.schema import UNKNOWN, LoraSource, PartSource
from runner.manifest.sources import check_source, part_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path
    from runner.manifest.problems import Position, Problems
    from runner.manifest.schema import Source
    from runner.pipeline.stage import PipelineStage


def where_source(manifest: Manifest, stage: int, source: Source | None = None) -> Position:
    """The position of a stage's model source, of a part that it loads, or of an adapter."""
    if isinstance(source, PartSource) and _is_written(manifest, stage, source.component):
        return manifest.where(*_model(manifest, stage), "components", source.component)
    if isinstance(source, LoraSource):
        tables = manifest.table.lora
        n = next(n for n, table in enumerate(tables) if source_of(table) == source)
        return manifest.where("lora", n, "source")
    return manifest.where(*_model(manifest, stage), "source")


def where_component(manifest: Manifest, stage: PipelineStage, component: str) -> Position:
    """The position of the source that a stage loads a component from."""
    part = part_source(stage.model, component) if stage.model else None
    return where_source(manifest, stage.index, part)


def check_sources(manifest: Manifest, stage: int, problems: Problems) -> bool:
    """Whether a stage's model and its parts are written correctly; adds a problem for each that is not."""
    model = manifest.table.model_of(manifest.table.stage[stage])
    if model is None:
        return True
    parts = [part for name in model.components if (part := part_source(model, name)) is not None]
    is_right = True
    for source in (model, *parts):
        wrong = None if source.source == UNKNOWN else check_source(source, manifest.folder)
        if wrong:
            is_right = False
            problems.add(where_source(manifest, stage, source), wrong)
    return is_right


def check_component_names(manifest: Manifest, stages: Sequence[PipelineStage], problems: Problems) -> None:
    """Add a problem for each name in ``[model.components]`` that no stage loads from that model."""
    if len(stages) < len(manifest.table.stage):  # an unknown stage could load any component
        return
    for stage in stages:
        if stage.model is None or not stage.model.components:
            continue
        known = {c.name: None for other in stages if other.model == stage.model for c in other.components}
        for name in stage.model.components:
            if name not in known and _is_written(manifest, stage.index, name):
                where = manifest.where(*_model(manifest, stage.index), "components", name, key=True)
                hint = did_you_mean(name, known) or f" (they load: {', '.join(known) or 'none'})"
                code = ExitCode.USAGE if where.is_override else ExitCode.MANIFEST
                problems.add(where, f"no stage loads a component '{name}' of this model{hint}", code)


def check_buffers(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    """Add a problem for each component of which the stage reads single tensors, and that is a single file."""
    for component in stage.components if stage.model else ():
        part = part_source(stage.model, component.name) if stage.model else None
        if part is not None and part.file and component.buffers:
            message = (
                f"{stage.spec.name} reads {', '.join(component.buffers)} of component '{component.name}', "
                "which are not looked for in single files: name a folder or a hub id"
            )
            problems.add(where_source(manifest, stage.index, part), message)


def _model(manifest: Manifest, stage: int) -> Path:
    """The path of a stage's model table."""
    return ("stage", stage, "model") if manifest.table.stage[stage].model else ("model",)


def _is_written(manifest: Manifest, stage: int, component: str) -> bool:
    """Whether the manifest or an override names a component's source; a whole checkpoint has others."""
    path = (*_model(manifest, stage), "components", component)
    return manifest.positions.has(path) or any(path[: len(o.path)] == o.path for o in manifest.overrides)
