"""Finds a pipeline's models on this machine, downloads missing ones, and computes fingerprints and keys."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.errors import ExitCode, ModelError
from runner.manifest.problems import Problems
from runner.manifest.schema import UNKNOWN, LoraSource, PartSource
from runner.manifest.sources import check_source, is_hub_id
from runner.model.files import read_index
from runner.model.fingerprint import CHANGED, fingerprint, identities
from runner.model.hub.errors import is_offline, offline
from runner.model.hub.headers import commit_of, describe, model_index
from runner.model.hub.snapshots import lacking
from runner.model.preparation import preparation
from runner.model.sources import ComposedModel, Model, find
from runner.pipeline.model_sources import where_source
from runner.work.adapters import Adapters
from runner.work.keys import Prints, keys_of
from runner.work.loaded_shapes import as_loaded, errors_at, notes_on_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runner.api import Component
    from runner.files.hashes import Identities
    from runner.manifest.problems import Position
    from runner.manifest.schema import ModelSource, Source
    from runner.model.files import ComponentFiles
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.work.keys import Keys


@dataclass(frozen=True)
class ResolvedModels:
    """A pipeline with the models that are on this machine.

    ``models`` has the models and the sources of components from elsewhere, None for one on the hub that is
    not downloaded.
    """

    pipeline: Pipeline
    models: dict[Source, Model | None]
    _files: dict[tuple[Source, Component], ComponentFiles] = field(default_factory=dict)
    """Of each opened component: headers are read once."""
    _prints: list[Prints] = field(default_factory=list)
    """The fingerprints of each stage that the keys were computed from."""
    _described: dict[tuple[int, Source], dict[str, ComponentShapes]] = field(default_factory=dict)
    _indices: dict[ModelSource, Mapping[str, Any]] = field(default_factory=dict)
    _shapes_of: dict[int, tuple[PipelineStage, list[ComponentShapes]]] = field(default_factory=dict)

    def model(self, stage: PipelineStage) -> ComposedModel | None:
        """The model of a stage that loads components, if it and every part from elsewhere are here."""
        models = {source: self.models.get(source) for source in stage.origins}
        here = {source: model for source, model in models.items() if model is not None}
        if stage.model is None or not here or len(here) < len(models):
            return None
        parts = {s.component: model for s, model in here.items() if isinstance(s, PartSource)}
        return ComposedModel(here[stage.model], parts)

    def placed(self, stage: PipelineStage) -> ComposedModel | None:
        """The same with the components that are quantised or converted, where they are or will be.

        And with the adapters that change it. Raises as :meth:`components`.
        """
        model = self.adapters.added(stage, self.model(stage))
        shapes = {one.component.name: one for one in self.shapes(stage) if one.prepared}
        if model is None or not shapes:
            return model
        found = {
            name: preparation(shapes[name], files, model.place(component, files.layout), stage.table.dtype)
            for component, files in zip(stage.components, self.components(stage), strict=True)
            if (name := component.name) in shapes
        }
        return replace(model, prepared=found)

    def components(self, stage: PipelineStage) -> list[ComponentFiles]:
        """The files of the stage's components, checked; empty if one of their sources is not here.

        Raises:
            ManifestError: a file is missing, cut off or pickled.

        """
        if self.model(stage) is None:
            return []
        found: dict[str, ComponentFiles] = {}
        for source in stage.model_sources:
            for files in self.opened(stage, source):
                name = files.component.name
                # a single file of weights has its config from the model, which comes first
                config = found.get(name)
                found[name] = files if config is None else replace(files, configured=config)
        return [found[component.name] for component in stage.components]

    def opened(self, stage: PipelineStage, source: Source) -> list[ComponentFiles]:
        """The files of the components that a stage loads from one source, which is here."""
        model = self.models[source]
        with _errors_at(self.pipeline, stage, source):
            return [self.open(model, component) for component in stage.origins[source]] if model else []

    def open(self, model: Model, component: Component) -> ComponentFiles:
        """One component's files, checked.

        Raises:
            ModelError: one is missing, cut off or pickled.

        """
        key = (model.source, component)
        if key not in self._files:
            self._files[key] = model.component(component)
        return self._files[key]

    def shapes(self, stage: PipelineStage) -> list[ComponentShapes]:
        """The shapes of the stage's components; of a model that is not here, from headers on the hub.

        They have the reports of the adapters that were tried.

        Raises:
            ManifestError: a file is missing or damaged, or the hub does not answer.

        """
        return self.adapters.reported(stage, self._plain_shapes(stage))

    def _plain_shapes(self, stage: PipelineStage) -> list[ComponentShapes]:
        if stage.model is None or not stage.components:
            return []
        if stage.index not in self._shapes_of or self._shapes_of[stage.index][0] is not stage:
            stored = {source: self._shapes(stage, source) for source in stage.model_sources}
            self._shapes_of[stage.index] = stage, as_loaded(self.pipeline.manifest, stage, stored)
        return self._shapes_of[stage.index][1]

    @cached_property
    def adapters(self) -> Adapters:
        """The adapters, and what they change."""
        return Adapters(self.pipeline, self.models, self._plain_shapes, self.index, self.opened)

    def _shapes(self, stage: PipelineStage, source: Source) -> dict[str, ComponentShapes]:
        """The shapes of the components that a stage loads from one source, by name."""
        if self.models.get(source) is not None:
            return {files.component.name: files.stored_shapes for files in self.opened(stage, source)}
        if (stage.index, source) not in self._described:
            with _errors_at(self.pipeline, stage, source):
                self._described[stage.index, source] = describe(source, stage.origins[source])
        return self._described[stage.index, source]

    def folders(self, stage: PipelineStage) -> dict[str, tuple[str, Path | None]]:
        """By component, the name of the model that it is from, for messages, and its folder if it is here."""
        sources = {c.name: source for source, components in stage.origins.items() for c in components}
        models = {name: self.models.get(source) for name, source in sources.items()}
        return {
            name: (str(model.folder), model.folder) if model else (sources[name].source, None)
            for name, model in models.items()
        }

    def index(self, stage: PipelineStage) -> Mapping[str, Any]:
        """The ``model_index.json`` of the stage's model; empty if it has none.

        Raises:
            ManifestError: it is damaged, or the hub does not answer.

        """
        source = stage.model
        if source is None:
            return {}
        if source not in self._indices:
            model = self.models.get(source)
            with _errors_at(self.pipeline, stage, source):
                self._indices[source] = read_index(model.folder) if model else model_index(source)
        return self._indices[source]

    def notes(self, stage: PipelineStage) -> dict[str, str]:
        """Messages about weights that are not from where the manifest says first, with the kinds of warnings.

        Raises:
            ManifestError: as :meth:`shapes`.

        """
        return notes_on_sources(stage.model, self.shapes(stage)) if stage.model else {}

    def commits(self) -> dict[Source, str | None]:
        """The commit of each hub model that is here, or that a run would download; None if unknown."""
        return {
            source: model.commit if model else commit_of(source)
            for source, model in self.models.items()
            if is_hub_id(source.source)
        }

    def refuse_unreachable(self) -> None:
        """Check that missing models may be downloaded.

        Raises:
            ManifestError: the environment forbids it (``HF_HUB_OFFLINE``).

        """
        problems = Problems()
        for source, model in self.models.items():
            if model is None and is_offline():
                state = lacking(source, self.pipeline.components_of(source))
                problems.add(self._where(source), str(offline(source, state)), ExitCode.MODEL)
        problems.check()

    def _where(self, source: Source) -> Position:
        stage = next(stage for stage in self.pipeline.stages if source in stage.origins)
        return where_source(self.pipeline.manifest, stage.index, source)

    def keys(self, *, hash_missing: bool = True) -> Keys | None:
        """The keys of all items; None if a model is not here, or not hashed and ``hash_missing`` is False."""
        prints = []
        for stage in self.pipeline.stages:
            is_here = not stage.components or self.model(stage) is not None
            found = self._prints_of(stage, hash_missing=hash_missing) if is_here else None
            if found is None:
                return None
            prints.append(found)
        self._prints[:] = prints
        return keys_of(self.pipeline, prints)

    def _prints_of(self, stage: PipelineStage, *, hash_missing: bool) -> Prints | None:
        model = fingerprint(self.components(stage), hash_missing=hash_missing)
        loras = self.adapters.prints(stage, hash_missing=hash_missing)
        if model is None or loras is None:
            return None
        return Prints(model if stage.components else "", loras)

    @property
    def fingerprints(self) -> list[Prints]:
        """What each stage loads, as the keys were computed from it."""
        return list(self._prints)

    def unchanged(self, stage: PipelineStage) -> Identities:
        """The identities of the stage's files, which are those that its keys were computed from.

        Raises a ManifestError if they were changed since.
        """
        files = identities(one for source in stage.origins for one in self.opened(stage, source))
        if self._prints_of(stage, hash_missing=True) != self._prints[stage.index]:
            with _errors_at(self.pipeline, stage, stage.model):
                raise ModelError(CHANGED)
        return files


def resolve_models(pipeline: Pipeline) -> ResolvedModels:
    """Find every model on this machine and open its files, without the network.

    Raises:
        ManifestError: models are missing or damaged; it has all problems.

    """
    problems = Problems()
    resolved = find_models(pipeline, problems)
    problems.check()
    return resolved


def find_models(pipeline: Pipeline, problems: Problems) -> ResolvedModels:
    """Like :func:`resolve_models`, but adds errors to ``problems``, at the model's source.

    The pipeline may be incomplete: see :func:`~runner.pipeline.binding.bind_valid_parts`.
    """
    manifest, base = pipeline.manifest, pipeline.manifest.folder
    resolved = ResolvedModels(pipeline, {})
    for stage, source in origins_of(pipeline):
        if source.source == UNKNOWN or (not isinstance(source, LoraSource) and check_source(source, base)):
            continue  # that is a problem already
        where = where_source(manifest, stage.index, source)
        if source not in resolved.models:
            resolved.models[source] = None
            with problems.errors_at(where):
                components = pipeline.components_of(source)
                resolved.models[source] = find(source, base, pipeline.plugins, components)
        model = resolved.models[source]
        if model is not None:
            for component in stage.origins[source]:
                with problems.errors_at(where):
                    resolved.open(model, component)
    return resolved


def origins_of(pipeline: Pipeline) -> Iterator[tuple[PipelineStage, Source]]:
    """Each stage with each source that it loads components from."""
    return ((stage, source) for stage in pipeline.stages for source in stage.origins)


def _errors_at(
    pipeline: Pipeline, stage: PipelineStage, source: Source | None
) -> AbstractContextManager[None]:
    """Give errors of a stage's model, or of a part, the position where the manifest names it."""
    return errors_at(where_source(pipeline.manifest, stage.index, source))
