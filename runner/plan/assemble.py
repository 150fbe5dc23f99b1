"""From a bound pipeline to what a run needs to know: models, fingerprints, keys and the work to do."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.manifest.problems import Problems, did_you_mean
from runner.manifest.schema import UNKNOWN, ModelSource
from runner.model.files import read_index
from runner.model.fingerprint import fingerprint
from runner.model.remote import describe, model_index
from runner.model.sources import Model, check_source, fetch, find
from runner.plan import ALL_STAGES
from runner.plan.keys import Keyed, keys_of
from runner.plan.pipeline import where_source
from runner.rundir import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.api import Component
    from runner.model.files import ComponentFiles
    from runner.model.shapes import ComponentShapes
    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage


@dataclass(frozen=True)
class Assembly:
    """A pipeline with the models that are on this machine.

    ``models`` has None for a hub model that is yet to be fetched.
    """

    pipeline: Pipeline
    models: dict[ModelSource, Model | None]
    _files: dict[int, list[ComponentFiles]] = field(default_factory=dict)
    """Of each stage, once they were opened: headers are read once."""
    _described: dict[int, dict[str, ComponentShapes]] = field(default_factory=dict)
    _indices: dict[ModelSource, Mapping[str, Any]] = field(default_factory=dict)

    def model(self, stage: PipelineStage) -> Model | None:
        return self.models.get(stage.model) if stage.model and stage.spec.components else None

    def components(self, stage: PipelineStage) -> list[ComponentFiles]:
        """The files of the stage's components, checked; empty for a model that is not here.

        Raises:
            ModelError: a file is missing, cut off or pickled.

        """
        model = self.model(stage)
        if model is not None and stage.index not in self._files:
            self._files[stage.index] = [model.component(c) for c in stage.spec.components]
        return self._files.get(stage.index, [])

    def shapes(self, stage: PipelineStage) -> list[ComponentShapes]:
        """The shapes of the stage's components; of a model that is not here, fetched without its weights.

        Raises:
            ModelError: a file is missing or damaged, or the hub does not tell.

        """
        if stage.model is None or not stage.spec.components:
            return []
        if self.model(stage) is not None:
            return [files.shapes for files in self.components(stage)]
        if stage.index not in self._described:
            self._described[stage.index] = describe(stage.model, stage.spec.components)
        return list(self._described[stage.index].values())

    def index(self, stage: PipelineStage) -> Mapping[str, Any]:
        """The ``model_index.json`` of the stage's model; empty if it has none.

        Raises:
            ModelError: it is damaged, or the hub does not tell.

        """
        source = stage.model
        if source is None:
            return {}
        if source not in self._indices:
            model = self.models.get(source)
            self._indices[source] = read_index(model.folder) if model else model_index(source)
        return self._indices[source]

    def keys(self, *, hash_missing: bool = True) -> dict[str, tuple[Keyed, ...]] | None:
        """The keys of every item; None if a model is not here, or is unhashed and may not be hashed."""
        prints = []
        for stage in self.pipeline.stages:
            if stage.spec.components and self.model(stage) is None:
                return None
            found = fingerprint(self.components(stage), hash_missing=hash_missing)
            if found is None:
                return None
            prints.append(found if stage.spec.components else "")
        return keys_of(self.pipeline, prints)


def assemble(pipeline: Pipeline) -> Assembly:
    """Look for every model on this machine; asks no network.

    Raises:
        ModelError: a model folder is missing.

    """
    base = pipeline.manifest.folder
    return Assembly(
        pipeline,
        {
            source: find(source, base, pipeline.plugins, pipeline.components_of(source))
            for source in pipeline.models
        },
    )


def check_models(pipeline: Pipeline, problems: Problems) -> None:
    """Look at the files of every model on this machine; what is wrong becomes a problem at its source.

    The pipeline may be what :func:`~runner.plan.pipeline.bind_what_is_right` has left of one.
    """
    manifest, models = pipeline.manifest, dict[ModelSource, Model | None]()
    seen: set[tuple[ModelSource, Component]] = set()
    for stage in pipeline.stages:
        source = stage.model
        if source is None or not stage.spec.components or source.source == UNKNOWN or check_source(source):
            continue
        where = where_source(manifest, stage)
        if source not in models:
            models[source] = None
            with problems.errors_at(where):
                components = pipeline.components_of(source)
                models[source] = find(source, manifest.folder, pipeline.plugins, components)
        model = models[source]
        for component in stage.spec.components:
            if model is not None and (source, component) not in seen:
                seen.add((source, component))
                with problems.errors_at(where):
                    model.component(component)


def fetch_missing(assembly: Assembly, progress: Callable[[str, int, int], None]) -> Assembly:
    """Download the models that are not here; ``progress`` is told source, bytes so far and in all.

    Raises:
        ModelError: one is missing, gated or cannot be had whole.
        StorageError: there is no room.

    """
    pipeline = assembly.pipeline
    models = dict(assembly.models)
    for source, model in models.items():
        if model is None:
            report = functools.partial(progress, source.source)
            models[source] = fetch(source, pipeline.components_of(source), report)
    return Assembly(pipeline, models)


def forced_stages(pipeline: Pipeline, fresh: str | None) -> list[int]:
    """The stages, by index, that ``--fresh`` names.

    Raises:
        UsageError: there is no such stage.

    """
    names = [stage.name for stage in pipeline.stages]
    if fresh not in (None, ALL_STAGES, *names):
        hint = did_you_mean(str(fresh), names)
        raise UsageError(f"--fresh {fresh}: there is no such stage{hint} (there are: {', '.join(names)})")
    return [n for n, name in enumerate(names) if fresh in (ALL_STAGES, name)]


def run_directory(pipeline: Pipeline, runs: Path) -> RunDirectory:
    # absolute: a stage may change its working directory
    return RunDirectory(runs.absolute() / pipeline.manifest.table.name)
