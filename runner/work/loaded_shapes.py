"""The shapes of a stage's components as it loads them: single files in their layout, and quantised."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.errors import ExitCode, ModelError
from runner.manifest.problems import ManifestError, Problem
from runner.model.checks.formats import foreign_in_file
from runner.model.layouts import in_layout
from runner.model.parts import file_of
from runner.model.preparation import prepared_shapes
from runner.pipeline.model_sources import where_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.manifest.load import Manifest
    from runner.manifest.problems import Position
    from runner.manifest.schema import ModelSource, Source
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.stage import PipelineStage


def as_loaded(
    manifest: Manifest, stage: PipelineStage, stored: Mapping[Source, Mapping[str, ComponentShapes]]
) -> list[ComponentShapes]:
    """The shapes of the stage's components, in the order of its declaration.

    ``stored`` are those of the files, by source and component. Of a single file of weights, the config is
    among those of the model, which comes first.

    Raises:
        ManifestError: a file is not of its component's class, what reads it is not installed, or it cannot be
            quantised.

    """
    shapes: dict[str, ComponentShapes] = {}
    for source, components in stored.items():
        where = where_source(manifest, stage.index, source)
        for name, found in components.items():
            shapes[name] = _laid_out(found, shapes[name], where) if file_of(source) else found
    return [_prepared(manifest, stage, shapes[component.name]) for component in stage.components]


def _laid_out(file: ComponentShapes, configured: ComponentShapes, where: Position) -> ComponentShapes:
    """A single file with the config of the component, in the layout of its class."""
    if file.quantisation is not None and (lacking := file.quantisation.missing):
        subject = f"component '{file.component.name}' is quantised ({file.quantisation})"
        raise ManifestError([Problem(where, f"{subject}, and {lacking}", ExitCode.PLUGIN)])
    with errors_at(where):
        if message := foreign_in_file(file.tensors):
            raise ModelError(f"component '{file.component.name}': {file.names[0]}: {message}")
        return in_layout(replace(file, config=configured.config))


def _prepared(manifest: Manifest, stage: PipelineStage, shapes: ComponentShapes) -> ComponentShapes:
    name = shapes.component.name
    scheme = stage.quantize.get(name)
    if not shapes.tensors or shapes.component.config_only:
        made, lacking = shapes, "weights"
    else:
        with errors_at(manifest.where("stage", stage.index, "quantize")):
            made = prepared_shapes(shapes, scheme, stage.table.dtype)
        lacking = "layers that would be quantised"
    if scheme and not made.prepared and isinstance(stage.table.quantize, dict):
        where = manifest.where("stage", stage.index, "quantize", name, key=True)
        raise ManifestError([Problem(where, f"component '{name}' has no {lacking}")])
    return made


@contextmanager
def errors_at(where: Position) -> Iterator[None]:
    """Give errors of models a position in the manifest."""
    try:
        yield
    except ModelError as error:
        raise ManifestError([Problem(where, str(error), ExitCode.MODEL)]) from error


def notes_on_sources(model: ModelSource, components: Iterable[ComponentShapes]) -> dict[str, str]:
    """Messages about weights that are not from where the manifest says first, with the kinds of warnings."""
    found: dict[str, str] = {}
    for shapes in (one for one in components if one.tensors):
        name = shapes.component.name
        if shapes.variant != model.variant:
            files = f"has no files of variant '{model.variant}': its plain files are loaded"
            found[f"component '{name}' {files}"] = "variant_absent"
        if model.checkpoint and name not in model.components:
            place = f"is from {model.source}: {model.checkpoint} does not hold it"
            found[f"component '{name}' {place}"] = "component_absent"
    return found
