"""What a manifest's models and parameters say against each other, before anything is started or fetched."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.api import Facts, Problem
from runner.errors import ExitCode, PluginError, RunnerError, in_words
from runner.manifest.problems import ManifestError, Position, Problems
from runner.model.checks.classes import class_problems, pipeline_problem
from runner.model.checks.formats import foreign_format
from runner.model.checks.request import ComponentCheck, checks_of
from runner.pipeline.binding import where_source
from runner.pipeline.params import instance
from runner.plugins import load_object
from runner.work.models import find_models

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from runner.api import Component
    from runner.pipeline.binding import Pipeline, PipelineItem
    from runner.pipeline.stage import PipelineStage
    from runner.work.models import ResolvedModels


@dataclass(frozen=True)
class Warned:
    """Something to be shown that stops nobody."""

    where: Position
    message: str
    stage: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class Findings:
    """What was found, as far as it was looked."""

    problems: Problems = field(default_factory=Problems)
    warnings: dict[Warned, None] = field(default_factory=dict)
    """As keys: in order, and each once."""
    refused: set[Component] = field(default_factory=set)
    """What something is wrong with already: its library would fail at it in its own words."""


def look(assembly: ResolvedModels, stages: Iterable[PipelineStage]) -> Findings:
    """Hold what the stages declare against what headers, configs and parameters say.

    Raises:
        ModelError: a file is missing or damaged, or the hub does not tell.
        PluginError: a stage's own check fails.

    """
    findings = Findings()
    for stage in stages:
        _look_at_model(assembly, stage, findings)
        if stage.spec.check:
            _ask_stage(assembly, stage, findings)
    return findings


def check_models(pipeline: Pipeline, problems: Problems) -> None:
    """Add what is wrong with the models on this machine, as far as the pipeline could be bound."""
    is_bound = not problems.found
    assembly, findings = find_models(pipeline, problems), Findings(problems)
    there = [stage for stage in pipeline.stages if assembly.model(stage) is not None]
    for stage in there:
        with suppress(ManifestError):  # files that are broken are a problem already
            _look_at_model(assembly, stage, findings)
    for stage in there if is_bound and problems.found else ():  # nobody comes to ask the stages later
        if stage.spec.check and all(pipeline.stages[n] in there for n in stage.sources):
            with suppress(RunnerError):  # the check may fail at what is a problem already
                _ask_stage(assembly, stage, findings)


def component_checks(
    assembly: ResolvedModels, stages: Iterable[PipelineStage], refused: Collection[Component] = ()
) -> list[tuple[PipelineStage, ComponentCheck]]:
    """What only a worker can tell of the stages' components, without those that are known to agree or not."""
    found: dict[str, tuple[PipelineStage, ComponentCheck]] = {}
    for stage in stages:
        if stage.model is None:
            continue
        model = assembly.model(stage)
        shown = str(model.folder) if model else stage.model.source
        for check in checks_of(assembly.shapes(stage), shown, model.folder if model else None):
            if check.shapes.component not in refused and not check.is_known_to_agree:
                found.setdefault(check.digest, (stage, check))
    return list(found.values())


def _look_at_model(assembly: ResolvedModels, stage: PipelineStage, findings: Findings) -> None:
    if stage.model is None or not stage.spec.components:
        return
    where, index = where_source(assembly.pipeline.manifest, stage), assembly.index(stage)
    if message := pipeline_problem(stage.spec, index):
        findings.problems.add(where, message, ExitCode.MODEL)
    for shapes in assembly.shapes(stage):
        messages = list(class_problems(shapes, index))
        if message := foreign_format(shapes):
            messages.append(f"component '{shapes.component.name}': {message}")
        for message in messages:
            findings.problems.add(where, message, ExitCode.MODEL)
            findings.refused.add(shapes.component)


def _ask_stage(assembly: ResolvedModels, stage: PipelineStage, findings: Findings) -> None:
    """Call the stage's own check for each item."""
    check = load_object(stage.spec.check)
    configs = {n: _configs(assembly, assembly.pipeline.stages[n]) for n in {stage.index, *stage.sources}}
    upstream_configs = {name: configs[source.stage] for name, source in stage.wires.items()}
    for item in assembly.pipeline.items:
        upstream = {name: _instance(assembly, source.stage, item) for name, source in stage.wires.items()}
        facts = Facts(configs[stage.index], upstream, upstream_configs)
        for found in _returned(check, stage, item, _instance(assembly, stage.index, item), facts):
            where = _place(assembly, stage, item, found)
            if found.warning:
                findings.warnings[Warned(where, found.message, stage.name)] = None
            else:
                code = ExitCode.MODEL if found.component else ExitCode.MANIFEST
                findings.problems.add(where, found.message, code)


def _configs(assembly: ResolvedModels, stage: PipelineStage) -> Mapping[str, Mapping[str, Any]]:
    return {shapes.component.name: shapes.settings for shapes in assembly.shapes(stage)}


def _instance(assembly: ResolvedModels, stage: int, item: PipelineItem) -> Any:
    return instance(assembly.pipeline.stages[stage], item.params[stage], {})


def _returned(
    check: Any, stage: PipelineStage, item: PipelineItem, params: Any, facts: Facts
) -> Sequence[Problem]:
    what = f"the check {stage.spec.check} of {stage.spec.name}"
    try:
        found = list(check(params, facts))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may even call sys.exit
        raise PluginError(f"{what} fails for item '{item.id}': {in_words(error)}") from error
    if not all(isinstance(one, Problem) for one in found):
        raise PluginError(f"{what} returned {found!r}, and not a list of Problem")
    return found


def _place(assembly: ResolvedModels, stage: PipelineStage, item: PipelineItem, found: Problem) -> Position:
    """Where the item, or the stage or one that it takes from, sets the parameter; or the model's source."""
    manifest, name = assembly.pipeline.manifest, found.parameter
    if found.component:
        return where_source(assembly.pipeline.manifest, stage)
    if name in item.fields:
        return item.where(name)
    for n in (stage.index, *sorted(stage.sources, reverse=True)):
        if name in assembly.pipeline.stages[n].table.with_:
            return manifest.where("stage", n, "with", name)
    return item.where(None)
