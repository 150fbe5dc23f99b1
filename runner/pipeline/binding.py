"""A manifest bound to the installed plugins: stages wired, every item's parameters checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import ExitCode, PluginError
from runner.files.hashes import cached_hashes
from runner.manifest.input_files import file_parameters
from runner.manifest.items import expand
from runner.manifest.loras import weights_of
from runner.manifest.params import names_of
from runner.manifest.problems import Position, Problems
from runner.manifest.schema import UNKNOWN
from runner.manifest.sources import part_source
from runner.model.facts import facts_of, part_config
from runner.pipeline import wiring
from runner.pipeline.adapters import usable_loras
from runner.pipeline.checkpoints import with_checkpoints
from runner.pipeline.executor import ChosenExecutor, choose_executor
from runner.pipeline.for_model import depends_on_model, for_model, params_model
from runner.pipeline.model_sources import (
    check_component_names,
    check_sources,
    where_source,
)
from runner.pipeline.params import ParamsBinder, StageParams
from runner.pipeline.stage import PipelineStage
from runner.pipeline.stage_checks import check_stage
from runner.pipeline.suffixes import check_suffixes
from runner.pipeline.unknown_keys import check_unknown_fields, check_unknown_keys, check_unknown_with
from runner.pipeline.without_effect import without_effect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pydantic import BaseModel

    from runner.api import Component, ModelFacts, Stage
    from runner.manifest.batch_item import BatchItem
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Position
    from runner.manifest.schema import Source
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
    lora_weights: Mapping[str, float] = field(default_factory=dict)
    """Of each adapter, by name."""


@dataclass(frozen=True)
class Pipeline:
    """A manifest with its stages, and the items with their parameters."""

    manifest: Manifest
    plugins: Plugins
    stages: tuple[PipelineStage, ...]
    items: tuple[PipelineItem, ...]
    warnings: tuple[str, ...] = ()
    """Options that have no effect, a line each."""
    executor: ChosenExecutor | None = None
    """Who runs the stages, if not this machine."""

    def components_of(self, source: Source) -> list[Component]:
        """Every component that stages load from this model, or part of another."""
        found = [c for stage in self.stages for c in stage.origins.get(source, ())]
        return list(dict.fromkeys(found))

    def dtypes_elsewhere(self, stage: PipelineStage) -> dict[str, str]:
        """For components whose config alone a stage reads: the dtype of the stage that loads the weights.

        That is the next stage with the same model that does, or the last one before; there may be none. Only
        for stages whose components depend on the model: others compute in their own dtype alone.
        """
        if stage.facts is None:
            return {}
        order = [*self.stages[stage.index + 1 :], *reversed(self.stages[: stage.index])]
        loading = {
            c.name: other.table.dtype
            for other in reversed(order)
            if other.model == stage.model
            for c in other.components
            if not c.config_only
        }
        return {c.name: loading[c.name] for c in stage.components if c.config_only and c.name in loading}

    @property
    def input_files(self) -> set[str]:
        """Names of the parameters that are files."""
        return {name for stage in self.stages for name in file_parameters(stage.params)}


def bind(manifest: Manifest, plugins: Plugins) -> Pipeline:
    """Bind a manifest to plugins and check everything that can be checked before a process starts.

    Raises:
        ManifestError: all problems at once, among them missing plugins.

    """
    problems = Problems()
    pipeline = bind_valid_parts(manifest, plugins, problems)
    problems.check()
    return pipeline


def bind_valid_parts(manifest: Manifest, plugins: Plugins, problems: Problems) -> Pipeline:
    """Like :func:`bind`, but errors are added to ``problems``, and what is wrong is left out."""
    problems.found += manifest.problems
    manifest = with_checkpoints(manifest, plugins, problems)
    items = expand(manifest, problems)
    stages = bind_stages(manifest, plugins, problems)
    bound = _bind_items(manifest, stages, items, problems)
    executor = choose_executor(manifest, plugins, problems)
    return Pipeline(
        manifest, plugins, stages, bound, tuple(without_effect(manifest, stages, items)), executor
    )


def bind_stages(manifest: Manifest, plugins: Plugins, problems: Problems) -> tuple[PipelineStage, ...]:
    """The stages of a manifest, wired; errors are added to ``problems``.

    Stages whose plugin is missing or broken are left out.
    """
    found = [_look_up(manifest, plugins, n, problems) for n in range(len(manifest.table.stage))]
    specs = [one.spec for one in found]
    fields = [names_of(one.params) if one.params else [] for one in found]
    named = zip(manifest.table.stage, specs, fields, strict=True)
    check_unknown_keys(manifest, {table.name: names for table, spec, names in named if spec}, problems)
    wiring.check_outputs(manifest, specs, problems)
    wires = wiring.wire(manifest, specs, fields, problems)
    loras = usable_loras(manifest, problems)
    stages = tuple(
        PipelineStage(
            index=n,
            table=table,
            spec=spec,
            params=found[n].params,
            facts=found[n].facts,
            given={k: v for k, v in manifest.table.parameters_of(table).items() if k in fields[n]},
            wires=wires[n],
            budget=manifest.table.budget_of(table),
            model=manifest.table.model_of(table),
            consumed=frozenset(s.output for later in wires for s in later.values() if s.stage == n),
            loras=loras if table.model is None else (),
        )
        for n, (table, spec) in enumerate(zip(manifest.table.stage, specs, strict=True))
        if spec is not None
    )
    for stage in stages:
        check_stage(manifest, stage, problems)
    if loras and len(stages) == len(specs) and not any(stage.loras and stage.components for stage in stages):
        message = (
            "[[lora]] adapts the model of [model], and no stage loads a component of that one: it would have "
            "no effect"
        )
        problems.add(manifest.where("lora", key=True), message)
    check_component_names(manifest, stages, problems)
    return stages


@dataclass(frozen=True)
class _Resolved:
    """A stage resolved for its model; ``spec`` is None if the plugin is missing or broken."""

    spec: Stage | None = None
    params: type[BaseModel] | None = None
    facts: ModelFacts | None = None
    """Of a stage whose components or parameters depend on them."""


def _look_up(manifest: Manifest, plugins: Plugins, n: int, problems: Problems) -> _Resolved:
    """A stage of the manifest, for its model; what is wrong is added to ``problems``."""
    table = manifest.table.stage[n]
    if table.uses == UNKNOWN:
        return _Resolved()
    try:
        spec = plugins.stage(table.uses)
        if not depends_on_model(spec):
            return _Resolved(spec, params_model(spec, None))
    except PluginError as error:
        problems.add(manifest.where("stage", n, "uses"), str(error), ExitCode.PLUGIN)
        return _Resolved()
    return _for_model(manifest, plugins, n, spec, problems)


def _for_model(manifest: Manifest, plugins: Plugins, n: int, spec: Stage, problems: Problems) -> _Resolved:
    """A stage that depends on its model; if that is missing, its components and parameters are unknown."""
    source = manifest.table.model_of(manifest.table.stage[n])
    if source is None or source.source == UNKNOWN:
        where = manifest.where("stage", n)
        if source is None:
            problems.add(
                where, f"stage '{manifest.table.stage[n].name}' needs a model: give a [model] source"
            )
        return _Resolved()
    where = where_source(manifest, n)
    if not check_sources(manifest, n, problems):
        return _Resolved()
    parts, files = {}, 0
    for name in source.components:
        part = part_source(source, name)
        if part is not None and part.file:
            files += 1  # its config is the model's own
        elif part is not None:
            with problems.errors_at(where_source(manifest, n, part)):
                parts[name] = part_config(part, manifest.folder, plugins)
    if len(parts) + files < len(source.components):
        return _Resolved()
    with problems.errors_at(where):
        facts = facts_of(source, manifest.folder, plugins, parts)
        return _Resolved(for_model(spec, facts), params_model(spec, facts), facts)
    return _Resolved()


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
        weights = weights_of(item, manifest, problems)
        bound.append(PipelineItem(item.id, params, item.fields.keys(), item.where, weights))
    if any(file_parameters(stage.params) for stage in stages):
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
