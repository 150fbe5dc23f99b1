"""From a bound pipeline to what a run needs to know: models, fingerprints, keys and the work to do."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.errors import ExitCode, ModelError, PluginError, UsageError
from runner.manifest.problems import ManifestError, Problem, Problems, did_you_mean
from runner.model.fingerprint import fingerprint
from runner.model.hub import Listener, is_altered, lacking
from runner.model.hub_errors import is_offline, offline
from runner.model.remote import commit_of, describe
from runner.model.sources import Model, fetch, find
from runner.model.spelling import is_hub_id
from runner.plan import ALL_STAGES
from runner.plan.keys import Keyed, keys_of
from runner.rundir import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.manifest.problems import Position
    from runner.manifest.schema import ModelSource
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
    _prints: list[str] = field(default_factory=list)
    """The fingerprints that the keys were made from, of each stage."""
    _described: dict[int, dict[str, ComponentShapes]] = field(default_factory=dict)

    def model(self, stage: PipelineStage) -> Model | None:
        return self.models.get(stage.model) if stage.model and stage.spec.components else None

    def components(self, stage: PipelineStage) -> list[ComponentFiles]:
        """The files of the stage's components, checked; empty for a model that is not here.

        Raises:
            ManifestError: a file is missing, cut off or pickled.

        """
        model = self.model(stage)
        if model is not None and stage.index not in self._files:
            with _told_at_source(self.pipeline, stage):
                self._files[stage.index] = [model.component(c) for c in stage.spec.components]
        return self._files.get(stage.index, [])

    def shapes(self, stage: PipelineStage) -> list[ComponentShapes]:
        """The shapes of the stage's components; of a model that is not here, fetched without its weights.

        Raises:
            ManifestError: a file is missing or damaged, or the hub does not tell.

        """
        if stage.model is None or not stage.spec.components:
            return []
        if self.model(stage) is not None:
            return [files.shapes for files in self.components(stage)]
        if stage.index not in self._described:
            with _told_at_source(self.pipeline, stage):
                self._described[stage.index] = describe(stage.model, stage.spec.components)
        return list(self._described[stage.index].values())

    def notes(self, stage: PipelineStage) -> list[str]:
        """What is loaded of the stage's components otherwise than asked for.

        Raises:
            ManifestError: as :meth:`shapes`.

        """
        variant = stage.model.variant if stage.model else None
        plain = [s.component.name for s in self.shapes(stage) if s.tensors and s.variant != variant]
        told = f"has no files of variant '{variant}': its plain files are loaded"
        return [f"component '{name}' {told}" for name in plain]

    def commits(self) -> dict[ModelSource, str | None]:
        """Of each model on the hub, the commit that is loaded, or that a run would fetch; None if unknown."""
        return {
            source: model.commit if model else commit_of(source)
            for source, model in self.models.items()
            if is_hub_id(source.source)
        }

    def refuse_unreachable(self) -> None:
        """See that the models that are not here may be fetched.

        Raises:
            ManifestError: the user's environment forbids it.

        """
        problems = Problems()
        for source, model in self.models.items():
            if model is None and is_offline():
                state = lacking(source, self.pipeline.components_of(source))
                problems.add(_where(self.pipeline, source), str(offline(state)), ExitCode.MODEL)
        problems.check()

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
        self._prints[:] = prints
        return keys_of(self.pipeline, prints)

    def refuse_changed(self, stage: PipelineStage) -> None:
        """See that the stage's files are still those that its keys were made from.

        Raises:
            ManifestError: they were written to since.

        """
        if stage.spec.components and fingerprint(self.components(stage)) != self._prints[stage.index]:
            with _told_at_source(self.pipeline, stage):
                raise ModelError(
                    "the model's files were changed since the run began, and it would go on with others: run "
                    "it again"
                )


def assemble(pipeline: Pipeline) -> Assembly:
    """Look for every model on this machine, and at its files; asks no network.

    Raises:
        ManifestError: models are missing or broken; all that is wrong with them.

    """
    base, problems = pipeline.manifest.folder, Problems()
    models: dict[ModelSource, Model | None] = {}
    for source in pipeline.models:
        try:
            models[source] = find(source, base, pipeline.plugins, pipeline.components_of(source))
        except (ModelError, PluginError) as error:
            problems.add(_where(pipeline, source), str(error), error.exit_code)
    assembly = Assembly(pipeline, models)
    for stage in pipeline.stages:
        try:
            assembly.components(stage)
        except ManifestError as error:
            problems.found += error.problems
    problems.check()
    return assembly


def fetch_missing(assembly: Assembly, listener: Listener, *, refresh: bool = False) -> Assembly:
    """Download the models that are not here, and what has changed of those that are.

    With ``refresh``, the hub is asked where the revision of each model stands now.

    Raises:
        ManifestError: one is missing, gated or cannot be had whole.
        StorageError: there is no room.

    """
    pipeline = assembly.pipeline
    fetched: dict[ModelSource, Model | None] = {}
    for stage in pipeline.stages:
        source, model = stage.model, assembly.model(stage)
        if source not in assembly.models or source in fetched or not is_hub_id(source.source):
            continue
        moves = refresh and (model is None or model.commit != source.revision)
        with _told_at_source(pipeline, stage):
            if model is None or moves or is_altered(assembly.components(stage)):
                fetched[source] = fetch(source, pipeline.components_of(source), listener)
    return Assembly(pipeline, {**assembly.models, **fetched})


def _where(pipeline: Pipeline, source: ModelSource) -> Position:
    """Where a manifest names a model."""
    stage = next(s for s in pipeline.stages if s.model == source and s.spec.components)
    own = ("stage", stage.index) if stage.table.model else ()
    return pipeline.manifest.where(*own, "model", "source")


@contextmanager
def _told_at_source(pipeline: Pipeline, stage: PipelineStage) -> Iterator[None]:
    """Have what is wrong with a stage's model point at where the manifest names it."""
    try:
        yield
    except ModelError as error:
        if stage.model is None:
            raise
        where = _where(pipeline, stage.model)
        raise ManifestError([Problem(where, str(error), ExitCode.MODEL)]) from error


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
