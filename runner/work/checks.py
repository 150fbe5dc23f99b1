"""Checks models and parameters against the stages, before a worker starts or a model is downloaded."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.api import Facts, Problem
from runner.errors import ExitCode, PluginError, RunnerError, in_words
from runner.manifest.problems import ManifestError, Position, Problems
from runner.model.checks.classes import class_problems, pipeline_problem
from runner.model.checks.formats import foreign_format
from runner.model.checks.prediction import V, prediction_problem
from runner.model.checks.request import ComponentCheck, checks_of
from runner.pipeline.model_sources import where_component, where_source
from runner.pipeline.params import instance
from runner.placements import STREAM
from runner.plugins import load_object
from runner.work.models import find_models

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.load import Manifest
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline, PipelineItem
    from runner.pipeline.stage import PipelineStage
    from runner.work.models import ResolvedModels


@dataclass(frozen=True)
class Warned:
    """A warning, and where in the manifest it belongs."""

    where: Position
    message: str
    stage: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class Findings:
    """Problems and warnings that checks found."""

    problems: Problems = field(default_factory=Problems)
    warnings: dict[Warned, None] = field(default_factory=dict)
    """An ordered set."""
    refused: set[Component] = field(default_factory=set)
    """Components with a problem: they are not checked further in a worker."""


def look(resolved: ResolvedModels, stages: Iterable[PipelineStage]) -> Findings:
    """Check the stages' declarations against the models' headers and configs, and the items' parameters.

    Raises:
        ModelError: a file is missing or damaged, or the hub does not answer.
        PluginError: a stage's own check fails.

    """
    findings = Findings()
    for stage in stages:
        _check_model(resolved, stage, findings)
        if stage.spec.check:
            _run_stage_check(resolved, stage, findings)
    return findings


def check_models(pipeline: Pipeline, problems: Problems) -> None:
    """Add the problems of the models on this machine, for the stages that could be bound."""
    is_bound = not problems.found
    resolved, findings = find_models(pipeline, problems), Findings(problems)
    here = [stage for stage in pipeline.stages if resolved.model(stage) is not None]
    for stage in here:
        with suppress(ManifestError):  # damaged files are a problem already
            _check_model(resolved, stage, findings)
    for stage in here if is_bound and problems.found else ():  # the run stops here, so check all now
        if stage.spec.check and all(pipeline.stages[n] in here for n in stage.sources):
            with suppress(RunnerError):  # the check may fail because of a known problem
                _run_stage_check(resolved, stage, findings)


def component_checks(
    resolved: ResolvedModels, stages: Iterable[PipelineStage], refused: Collection[Component] = ()
) -> list[tuple[PipelineStage, ComponentCheck]]:
    """The checks of the stages' components to make in a worker: those without a known result."""
    found: dict[str, tuple[PipelineStage, ComponentCheck]] = {}
    for stage in stages:
        if stage.model is None:
            continue
        for check in checks_of(resolved.shapes(stage), resolved.folders(stage)):
            if check.shapes.component not in refused and not check.is_known_to_agree:
                found.setdefault(check.digest, (stage, check))
    return list(found.values())


def _check_model(resolved: ResolvedModels, stage: PipelineStage, findings: Findings) -> None:
    if stage.model is None or not stage.components:
        return
    where, index = where_source(resolved.pipeline.manifest, stage.index), resolved.index(stage)
    if message := pipeline_problem(stage.spec, index):
        findings.problems.add(where, message, ExitCode.MODEL)
    for shapes in resolved.shapes(stage):
        where = where_component(resolved.pipeline.manifest, stage, shapes.component.name)
        is_part = shapes.component.name in stage.model.components
        messages = list(class_problems(shapes, {} if is_part else index))
        if message := foreign_format(shapes):
            messages.append(f"component '{shapes.component.name}': {message}")
        _check_quantisation(resolved.pipeline.manifest, stage, shapes, findings)
        for message in messages:
            findings.problems.add(where, message, ExitCode.MODEL)
            findings.refused.add(shapes.component)
    _check_prediction(resolved, stage, findings)


def _check_prediction(resolved: ResolvedModels, stage: PipelineStage, findings: Findings) -> None:
    """Warn if the scheduler expects another prediction, unless every item's parameters name the right one."""
    name, message = prediction_problem(resolved.shapes(stage))
    given = (item.params[stage.index].canonical for item in resolved.pipeline.items)
    if message and not all(V in json.dumps(values, default=str) for values in given):
        where = where_component(resolved.pipeline.manifest, stage, name)
        findings.warnings[Warned(where, message, stage.name)] = None


def _check_quantisation(
    manifest: Manifest, stage: PipelineStage, shapes: ComponentShapes, findings: Findings
) -> None:
    """Check that what reads a component's quantised weights is installed, and computes in this dtype."""
    quantisation = shapes.quantisation
    if quantisation is None:
        return
    subject = f"component '{shapes.component.name}' is quantised ({quantisation})"
    where = where_component(manifest, stage, shapes.component.name)
    if lacking := quantisation.missing:
        findings.problems.add(where, f"{subject}, and {lacking}", ExitCode.PLUGIN)
        findings.refused.add(shapes.component)
    placement = stage.table.placement
    if quantisation.excludes(placement):
        place = manifest.where("stage", stage.index, "placement")
        message = f"{subject}, and placement '{placement}' cannot move such weights: use '{STREAM}'"
        findings.problems.add(place, message, ExitCode.MANIFEST)
    if quantisation.dtype not in (None, stage.table.dtype):
        message = f'{subject} for {quantisation.dtype}: set `dtype = "{quantisation.dtype}"` in the stage'
        findings.problems.add(where, message, ExitCode.MODEL)


def _run_stage_check(resolved: ResolvedModels, stage: PipelineStage, findings: Findings) -> None:
    """Call the check that the stage declares, for each item."""
    check = load_object(stage.spec.check)
    configs = {n: _configs(resolved, resolved.pipeline.stages[n]) for n in {stage.index, *stage.sources}}
    upstream_configs = {name: configs[source.stage] for name, source in stage.wires.items()}
    for item in resolved.pipeline.items:
        upstream = {name: _instance(resolved, source.stage, item) for name, source in stage.wires.items()}
        facts = Facts(configs[stage.index], upstream, upstream_configs)
        for found in _returned(check, stage, item, _instance(resolved, stage.index, item), facts):
            where = _position(resolved, stage, item, found)
            if found.warning:
                findings.warnings[Warned(where, found.message, stage.name)] = None
            else:
                code = ExitCode.MODEL if found.component else ExitCode.MANIFEST
                findings.problems.add(where, found.message, code)


def _configs(resolved: ResolvedModels, stage: PipelineStage) -> Mapping[str, Mapping[str, Any]]:
    return {shapes.component.name: shapes.settings for shapes in resolved.shapes(stage)}


def _instance(resolved: ResolvedModels, stage: int, item: PipelineItem) -> Any:
    return instance(resolved.pipeline.stages[stage], item.params[stage], {})


def _returned(
    check: Any, stage: PipelineStage, item: PipelineItem, params: Any, facts: Facts
) -> Sequence[Problem]:
    subject = f"the check {stage.spec.check} of {stage.spec.name}"
    try:
        found = list(check(params, facts))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        raise PluginError(f"{subject} fails for item '{item.id}': {in_words(error)}") from error
    if not all(isinstance(one, Problem) for one in found):
        raise PluginError(f"{subject} returned {found!r}, and not a list of Problem")
    return found


def _position(resolved: ResolvedModels, stage: PipelineStage, item: PipelineItem, found: Problem) -> Position:
    """Where the parameter is set: in the item, the stage or one before it; or where the model is named."""
    manifest, name = resolved.pipeline.manifest, found.parameter
    if found.component:
        return where_component(manifest, stage, found.component)
    if name in item.fields:
        return item.where(name)
    for n in (stage.index, *sorted(stage.sources, reverse=True)):
        if name in resolved.pipeline.stages[n].given:
            return manifest.where(*resolved.pipeline.stages[n].path_of(name))
    return item.where(None)
