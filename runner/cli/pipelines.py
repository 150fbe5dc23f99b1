"""Loading and checking the manifest of a command, with warnings on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.output import say
from runner.manifest.load import load
from runner.manifest.problems import Problems
from runner.pipeline.binding import Pipeline, bind_valid_parts
from runner.plugins import Plugins, discover
from runner.supervisor.requests.adapter_check import try_adapters
from runner.supervisor.requests.model_check import check_components
from runner.work.checks import check_models, look

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from runner.pipeline.stage import PipelineStage
    from runner.work.models import ResolvedModels


def open_pipeline(
    manifest: Path, sets: Sequence[str] = (), prompts: Sequence[str] = (), executor: str | None = None
) -> Pipeline:
    """Load a manifest with overrides, bind it to the installed plugins and check its models on this machine.

    ``sets`` are ``KEY=VALUE``; ``prompts`` replace those of the batch, ``executor`` that of the
    manifest.

    Raises:
        ManifestError: all problems of the manifest, at once.

    """
    loaded = load(manifest, sets, prompts, executor)
    plugins = discover_plugins()
    problems = Problems()
    pipeline = bind_valid_parts(loaded, plugins, problems)
    if pipeline.executor is None:  # else the models are where the stages run
        check_models(pipeline, problems)
    problems.check()
    warn_of_overrides(pipeline)
    return pipeline


def discover_plugins() -> Plugins:
    """The installed plugins; prints a warning for each broken one."""
    plugins = discover()
    warn_of_broken(plugins)
    return plugins


def warn_of_broken(plugins: Plugins) -> None:
    """Print a warning for each broken plugin."""
    for broken in plugins.broken:
        say(f"warning: {broken}")


def warn_of_overrides(pipeline: Pipeline) -> None:
    """Print a warning for each override that has no effect."""
    for line in pipeline.warnings:
        say(f"warning: {line}")


def check_stages(resolved: ResolvedModels, stages: Iterable[PipelineStage]) -> None:
    """Check that models and parameters fit their stages; prints a line for each warning.

    Raises:
        RunnerError: what does not fit.

    """
    stages = list(stages)
    try_adapters_of(resolved)
    findings = look(resolved, stages)
    check_components(resolved, stages, findings)
    for warning in findings.warnings:
        say(f"warning: {warning}")
    findings.problems.check()


def try_adapters_of(resolved: ResolvedModels) -> None:
    """Try the adapters on the models; prints a line for each part of them that has no effect.

    Raises:
        RunnerError: an adapter does not fit its model.

    """
    for warning in try_adapters(resolved):
        say(f"warning: {warning}")
