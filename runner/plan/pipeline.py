"""A manifest bound to the installed plugins: stages wired, every item's parameters checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from runner.errors import ExitCode, PluginError
from runner.manifest.items import BatchItem, expand
from runner.manifest.problems import Problems, did_you_mean
from runner.model.spelling import check_source
from runner.params import names_of
from runner.plan import wiring
from runner.plan.binder import Binder, Bound
from runner.plan.stage import PipelineStage
from runner.plugins import load_object
from runner.protocol import ACCELERATOR_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.api import Component, Stage
    from runner.manifest.load import Manifest
    from runner.manifest.schema import ModelSource
    from runner.plugins import Plugins


@dataclass(frozen=True)
class PipelineItem:
    """An item with its parameters at every stage."""

    id: str
    params: tuple[Bound, ...]


@dataclass(frozen=True)
class Pipeline:
    manifest: Manifest
    plugins: Plugins
    stages: tuple[PipelineStage, ...]
    items: tuple[PipelineItem, ...]

    def components_of(self, model: ModelSource) -> list[Component]:
        """Every component that stages load from this model."""
        found = [c for stage in self.stages if stage.model == model for c in stage.spec.components]
        return list(dict.fromkeys(found))

    @property
    def models(self) -> list[ModelSource]:
        """The model sources that stages load from."""
        used = [s.model for s in self.stages if s.model is not None and s.spec.components]
        return list(dict.fromkeys(used))


def bind(manifest: Manifest, plugins: Plugins) -> Pipeline:
    """Bind a manifest to plugins and check everything that can be checked before a process starts.

    Raises:
        ManifestError: what is wrong, all at once; plugins that are absent are among it.

    """
    problems = Problems(list(manifest.problems))
    items = expand(manifest, problems)
    stages = bind_stages(manifest, plugins, problems)
    bound = _bind_items(manifest, stages, items, problems)
    problems.check()
    return Pipeline(manifest, plugins, stages, bound)


def bind_stages(manifest: Manifest, plugins: Plugins, problems: Problems) -> tuple[PipelineStage, ...]:
    """The stages of a manifest, wired; what is wrong with them goes to the problems.

    Raises:
        ManifestError: a plugin is absent or broken.

    """
    specs = _specs(manifest, plugins, problems)
    _stop_at_plugins(problems)
    models = [_params_model(manifest, n, spec, problems) for n, spec in enumerate(specs)]
    _stop_at_plugins(problems)
    fields = [names_of(model) if model else [] for model in models]
    wiring.check_outputs(manifest, specs, problems)
    wires = wiring.wire(manifest, specs, fields, problems)
    stages = tuple(
        PipelineStage(
            index=n,
            table=table,
            spec=specs[n],
            params=models[n],
            wires=wires[n],
            budget=manifest.table.budget_of(table),
            model=manifest.table.model_of(table),
            consumed=frozenset(s.output for later in wires for s in later.values() if s.stage == n),
        )
        for n, table in enumerate(manifest.table.stage)
    )
    for stage in stages:
        _check_stage(manifest, stage, problems)
    return stages


def _specs(manifest: Manifest, plugins: Plugins, problems: Problems) -> list[Stage]:
    specs = []
    for n, table in enumerate(manifest.table.stage):
        try:
            specs.append(plugins.stage(table.uses))
        except PluginError as error:
            problems.add(manifest.where("stage", n, "uses"), str(error), ExitCode.PLUGIN)
    return specs


def _stop_at_plugins(problems: Problems) -> None:
    """Go no further where a plugin is absent or broken: what it would accept, nobody knows."""
    if any(problem.exit_code == ExitCode.PLUGIN for problem in problems.found):
        problems.check()


def _params_model(manifest: Manifest, n: int, spec: Stage, problems: Problems) -> type[BaseModel] | None:
    if not spec.params:
        return None
    where = manifest.where("stage", n, "uses")
    try:
        model = load_object(spec.params)
    except PluginError as error:
        problems.add(where, str(error), ExitCode.PLUGIN)
        return None
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model
    problems.add(where, f"'{spec.params}' is no pydantic model", ExitCode.PLUGIN)
    return None


def _check_stage(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    n = stage.index
    if stage.spec.components and stage.model is None:
        message = f"stage '{stage.name}' loads weights: give a [model] source for them"
        problems.add(manifest.where("stage", n), message)
    elif stage.model is not None:
        own = ("stage", n) if stage.table.model else ()
        wrong = check_source(stage.model, manifest.folder)
        if wrong:
            problems.add(manifest.where(*own, "model", "source"), wrong)
    placement, place = stage.table.placement, manifest.where("stage", n, "placement")
    if placement in ACCELERATOR_ONLY and stage.budget.device == "cpu":
        problems.add(place, f"placement '{placement}' needs an accelerator, and the device is cpu")
    for name, tier in (stage.table.device_map or {}).items():
        if not (isinstance(tier, int) and tier >= 0) and not re.fullmatch(r"cpu|disk|cuda(:\d+)?", str(tier)):
            where = manifest.where("stage", n, "device_map", name)
            problems.add(where, f"'{name}' is placed on {tier!r}; there are: cpu, disk, cuda, cuda:N, N")
    if placement in ACCELERATOR_ONLY and stage.table.device_map is not None:
        message = f"placement '{placement}' and a device_map exclude each other: remove one"
        problems.add(manifest.where("stage", n, "device_map", key=True), message)


def _bind_items(
    manifest: Manifest,
    stages: Sequence[PipelineStage],
    items: Sequence[BatchItem],
    problems: Problems,
) -> tuple[PipelineItem, ...]:
    declared = {name for stage in stages if stage.params for name in names_of(stage.params)}
    binders = [Binder(manifest, stage, problems) for stage in stages]
    if not items:
        for binder in binders:
            binder.check_with()
    bound = []
    for item in items:
        for name in item.fields:
            if name not in declared:
                hint = did_you_mean(name, [*declared, "id"])
                message = f"unknown key '{name}': no stage of this manifest has it{hint}"
                problems.add(item.where_key(name), message)
        bound.append(PipelineItem(item.id, tuple(binder.bind(item) for binder in binders)))
    return tuple(bound)
