"""``runner run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runner.cli.common import open_pipeline, print_json
from runner.cli.display import Display, LiveDisplay, PlainDisplay
from runner.journal import Event, Events
from runner.plan.assemble import run_directory
from runner.supervisor.run import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def run(
    manifest: Path,
    sets: Sequence[str],
    prompts: Sequence[str],
    fresh: str | None,
    runs_dir: Path,
    *,
    as_json: bool,
) -> int:
    """Run a manifest and show how it goes: live where stderr is a terminal, else a line an item."""
    pipeline = open_pipeline(manifest, sets, prompts)
    events = Events()
    budgets = {stage.name: stage.budget for stage in pipeline.stages}
    display: Display = LiveDisplay(budgets) if sys.stderr.isatty() else PlainDisplay()
    events.listeners.append(display.take)
    if as_json:
        events.listeners.append(_print_event)
    with display:
        return Supervisor(pipeline, run_directory(pipeline, runs_dir), events, fresh).run()


def _print_event(event: Event) -> None:
    if event["event"] != "memory":
        print_json(event)
