"""A manifest bound to the installed plugins: stages wired, every item's parameters checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel

from runner.accelerator.names import TIER, TIER_CHOICES
from runner.declarations import DeclarationError, check_suffix_parameters
from runner.errors import ExitCode, PluginError
from runner.files.hashes import cached_hashes
from runner.manifest.input_files import file_parameters
from runner.manifest.items import expand
from runner.manifest.params import names_of
from runner.manifest.problems import Position, Problems
from runner.manifest.schema import UNKNOWN
from runner.manifest.sources import check_source
from runner.pipeline import wiring
from runner.pipeline.params import ParamsBinder, StageParams
from runner.pipeline.stage import PipelineStage
from runner.pipeline.suffixes import check_suffixes
from runner.pipeline.unknown_keys import check_unknown_fields, check_unknown_keys, check_unknown_with
from runner.pipeline.without_effect import without_effect
from runner.placements import ACCELERATOR_ONLY
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from runner.api import Component, Stage
    from runner.manifest.batch_item import BatchItem
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Position
    from runner.manifest.schema import ModelSource
    from runner.plugins import Plugins


@dataclass(frozen=True)
class PipelineItem:
    """An item with its parameters at every stage."""

    id: str
    params: tuple[StageParams, ...]
    fields: Collection[str]
    """Names of the parameters that the item itself sets."""
    where: Callable[[str | None], Position] = field(repr=False)
    """The position of one of its fields in the manifest; of the item, for None."""


@dataclass(frozen=True)
class Pipeline:
    """A manifest with its stages, and the items with their parameters."""

    manifest: Manifest
    plugins: Plugins
    stages: tuple[PipelineStage, ...]
    items: tuple[PipelineItem, ...]
    warnings: tuple[str, ...] = ()
    """Options that have no effect, a line each."""

    def components_of(self, model: ModelSource) -> list[Component]:
        """Every component that stages load from this model."""
        found = [c for stage in self.stages if stage.model == model for c in stage.spec.components]
        return list(dict.fromkeys(found))

    @property
    def input_files(self) -> set[str]:
        """Names of the parameters that are files."""
        return {name for stage in self.stages for name in file_parameters(stage.params)}

    @property
    def models(self) -> list[ModelSource]:
        """The models that stages load components from."""
        used = [s.model for s in self.stages if s.model is not None and s.spec.components]
        return list(dict.fromkeys(used))


def bind(manifest: Manifest, plugins: Plugins) -> Pipeline:
    """Bind a manifest to plugins and check everything that can be checked before a process starts.

    Raises:
        ManifestError: all problems at once, among them missing plugins.

    """
    problems = Problems()
    pipeline = bind_what_is_right(manifest, plugins, problems)
    problems.check()
    return pipeline


def bind_what_is_right(manifest: Manifest, plugins: Plugins, problems: Problems) -> Pipeline:
    """Like :func:`bind`, but errors are added to ``problems``, and what is wrong is left out."""
    problems.found += manifest.problems
    items = expand(manifest, problems)
    stages = bind_stages(manifest, plugins, problems)
    bound = _bind_items(manifest, stages, items, problems)
    return Pipeline(manifest, plugins, stages, bound, tuple(without_effect(manifest, stages, items)))


def bind_stages(manifest: Manifest, plugins: Plugins, problems: Problems) -> tuple[PipelineStage, ...]:
    """The stages of a manifest, wired; errors are added to ``problems``.

    Stages whose plugin is missing or broken are left out.
    """
    specs: list[Stage | None] = []
    models: list[type[BaseModel] | None] = []
    for n in range(len(manifest.table.stage)):
        spec, model = _look_up(manifest, plugins, n, problems)
        specs.append(spec)
        models.append(model)
    fields = [names_of(model) if model else [] for model in models]
    named = zip(manifest.table.stage, specs, fields, strict=True)
    check_unknown_keys(manifest, {table.name: names for table, spec, names in named if spec}, problems)
    wiring.check_outputs(manifest, specs, problems)
    wires = wiring.wire(manifest, specs, fields, problems)
    stages = tuple(
        PipelineStage(
            index=n,
            table=table,
            spec=spec,
            params=models[n],
            given={k: v for k, v in manifest.table.parameters_of(table).items() if k in fields[n]},
            wires=wires[n],
            budget=manifest.table.budget_of(table),
            model=manifest.table.model_of(table),
            consumed=frozenset(s.output for later in wires for s in later.values() if s.stage == n),
        )
        for n, (table, spec) in enumerate(zip(manifest.table.stage, specs, strict=True))
        if spec is not None
    )
    for stage in stages:
        _check_stage(manifest, stage, problems)
    return stages


def _look_up(
    manifest: Manifest, plugins: Plugins, n: int, problems: Problems
) -> tuple[Stage | None, type[BaseModel] | None]:
    """A stage and the model of its parameters; None if the plugin is missing or broken."""
    uses = manifest.table.stage[n].uses
    if uses == UNKNOWN:
        return None, None
    try:
        spec = plugins.stage(uses)
        return spec, _params_model(spec)
    except PluginError as error:
        problems.add(manifest.where("stage", n, "uses"), str(error), ExitCode.PLUGIN)
        return None, None


def _params_model(spec: Stage) -> type[BaseModel] | None:
    if not spec.params:
        return None
    model = load_object(spec.params)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model
    raise PluginError(f"'{spec.params}' is not a pydantic model")


def _check_stage(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    n = stage.index
    if stage.spec.components and stage.model is None:
        message = f"stage '{stage.name}' loads weights: give a [model] source for them"
        problems.add(manifest.where("stage", n), message)
    elif stage.model is not None and stage.model.source != UNKNOWN:
        wrong = check_source(stage.model, manifest.folder)
        if wrong:
            problems.add(where_source(manifest, stage), wrong)
    placement, place = stage.table.placement, manifest.where("stage", n, "placement")
    if placement in ACCELERATOR_ONLY and stage.budget.device == "cpu":
        problems.add(place, f"placement '{placement}' needs an accelerator, and the device is cpu")
    for name, tier in (stage.table.device_map or {}).items():
        if not (isinstance(tier, int) and tier >= 0) and not re.fullmatch(TIER, str(tier)):
            where = manifest.where("stage", n, "device_map", name)
            problems.add(where, f"'{name}' is placed on {tier!r}; there are: {TIER_CHOICES}")
    _check_suffix_parameters(manifest, stage, problems)
    if placement in ACCELERATOR_ONLY and stage.table.device_map is not None:
        message = f"placement '{placement}' and a device_map exclude each other: remove one"
        problems.add(manifest.where("stage", n, "device_map", key=True), message)


def _check_suffix_parameters(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    """Check that parameters that give suffixes are the stage's, and that no earlier stage makes them."""
    where = manifest.where("stage", stage.index, "uses")
    try:
        check_suffix_parameters(stage.spec, names_of(stage.params) if stage.params else ())
    except DeclarationError as error:
        problems.add(where, str(error), ExitCode.PLUGIN)
    for name in stage.suffix_parameters:
        if name in stage.wires:
            maker = manifest.table.stage[stage.wires[name].stage].name
            problems.add(
                where, f"'{name}' is the extension of a file, and stage '{maker}' makes it as it runs"
            )


def where_source(manifest: Manifest, stage: PipelineStage) -> Position:
    """The position of a stage's model source in the manifest."""
    own = ("stage", stage.index) if stage.table.model else ()
    return manifest.where(*own, "model", "source")


def _bind_items(
    manifest: Manifest,
    stages: Sequence[PipelineStage],
    items: Sequence[BatchItem],
    problems: Problems,
) -> tuple[PipelineItem, ...]:
    if len(stages) == len(manifest.table.stage):  # an unknown stage could declare any parameter
        parameters = {stage.name: names_of(stage.params) if stage.params else [] for stage in stages}
        check_unknown_fields(items, parameters, problems)
        check_unknown_with(manifest, parameters, problems)
    binders = [ParamsBinder(manifest, stage, problems) for stage in stages]
    for binder in binders:
        binder.check_with()
    bound = []
    for item in items:
        before = len(problems.found)
        params = tuple(binder.bind(item) for binder in binders)
        if len(problems.found) == before and any(stage.suffix_parameters for stage in stages):
            check_suffixes(stages, params, partial(_where_set, binders, stages, item), problems)
        bound.append(PipelineItem(item.id, params, item.fields.keys(), item.where))
    cached_hashes().save()
    return tuple(bound)


def _where_set(
    binders: Sequence[ParamsBinder],
    stages: Sequence[PipelineStage],
    item: BatchItem,
    stage: PipelineStage,
    name: str,
) -> Position:
    return binders[stages.index(stage)].where(name, item)
