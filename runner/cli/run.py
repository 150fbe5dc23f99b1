"""``runner run``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from runner.cli.common import Options, open_pipeline, print_json, say
from runner.cli.display import Display, LiveDisplay, PlainDisplay
from runner.errors import ExitCode, RunnerError
from runner.journal import Event, Events
from runner.plan.assemble import run_directory
from runner.supervisor.run import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def run_all(manifests: Sequence[Path], options: Options) -> int:
    """Run manifests in turn; the exit code is the largest. Only an interruption keeps one from its turn."""
    if len(manifests) == 1:
        return run(manifests[0], options)
    codes = []
    for manifest in manifests:
        say(f"== {manifest}")
        try:
            codes.append(run(manifest, options))
        except RunnerError as error:
            say(f"{error.prefix}{error}")
            codes.append(error.exit_code)
            if error.exit_code == ExitCode.INTERRUPTED:
                break
    return max(codes)


def run(manifest: Path, options: Options) -> int:
    """Run a manifest and show how it goes: live where stderr is a terminal, else a line an item."""
    pipeline = open_pipeline(manifest, options)
    events = Events()
    budgets = {stage.name: stage.budget for stage in pipeline.stages}
    display: Display = LiveDisplay(budgets) if sys.stderr.isatty() else PlainDisplay()
    events.listeners.append(display.take)
    if options.as_json:
        events.listeners.append(_print_event)
    with display:
        return Supervisor(pipeline, run_directory(pipeline, options.runs_dir), events, options.fresh).run()


def _print_event(event: Event) -> None:
    if event["event"] == "memory":
        return
    try:
        print_json(event)
    except BrokenPipeError:  # the reader has gone; the run goes on, for files are the truth
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
