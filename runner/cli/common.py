"""What commands share: loading a manifest with its plugins, and telling of plugins that are broken."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.output import say as say  # noqa: PLC0414 - commands have it from here
from runner.manifest.load import load
from runner.manifest.problems import Problems
from runner.pipeline.binding import Pipeline, bind_what_is_right
from runner.plugins import Plugins, discover
from runner.supervisor.model_check import check_components
from runner.work.checks import check_models, look

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from runner.pipeline.stage import PipelineStage
    from runner.work.models import ResolvedModels


@dataclass(frozen=True)
class Options:
    """What the command line says besides the manifest."""

    sets: Sequence[str] = ()
    prompts: Sequence[str] = ()
    fresh: str | None = None
    runs_dir: Path = Path("runs")
    as_json: bool = False
    wait: bool = False
    retry_failed: bool = False
    fail_fast: bool = False


def open_pipeline(manifest: Path, options: Options) -> Pipeline:
    """Load a manifest, bind it to the installed plugins, and look at its models on this machine.

    Raises:
        ManifestError: all that is wrong with it, at once.

    """
    loaded = load(manifest, options.sets, options.prompts)
    plugins = discover()
    warn(plugins)
    problems = Problems()
    pipeline = bind_what_is_right(loaded, plugins, problems)
    check_models(pipeline, problems)
    problems.check()
    warn_without_effect(pipeline)
    return pipeline


def warn_without_effect(pipeline: Pipeline) -> None:
    """A line for each value of the command line that is not what it seems."""
    for line in pipeline.warnings:
        say(f"warning: {line}")


def check(assembly: ResolvedModels, stages: Iterable[PipelineStage]) -> None:
    """Hold models and parameters against what the stages take; a line for each that is only worth a warning.

    Raises:
        RunnerError: what is wrong.

    """
    stages = list(stages)
    findings = look(assembly, stages)
    check_components(assembly, stages, findings)
    for warning in findings.warnings:
        say(f"warning: {warning}")
    findings.problems.check()


def warn(plugins: Plugins) -> None:
    """A line for each plugin that is set aside."""
    for broken in plugins.broken:
        say(f"warning: {broken}")


def console(*, stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal is; in a file or a pipe, as wide as the text."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else 4000
    return Console(stderr=stderr, width=wide, soft_wrap=True, highlight=False, markup=False)


def print_json(value: Any) -> None:
    """Data for a program: one JSON value a line on stdout."""
    print(json.dumps(value), flush=True)  # noqa: T201
