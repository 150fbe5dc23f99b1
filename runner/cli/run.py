"""``runner run``."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.cli.common import Options, open_pipeline, print_json
from runner.cli.display import display_of
from runner.cli.output import OutputError
from runner.errors import RunnerError
from runner.events import Event, Memory, RunFinished, encode
from runner.report.live import LiveReport
from runner.rundir.journal import Events, present
from runner.supervisor.run import RunOptions, Supervisor
from runner.supervisor.signals import Interrupts
from runner.work.models import run_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.pipeline.binding import Pipeline


def run(manifest: Path, options: Options) -> int:
    """Run a manifest and show how it goes."""
    with always_finished(options):
        return run_pipeline(open_pipeline(manifest, options), options, Interrupts())


@contextlib.contextmanager
def always_finished(options: Options) -> Iterator[None]:
    """Print ``run_finished`` for ``--json`` after an error with which a run could not begin."""
    try:
        yield
    except RunnerError as error:
        if options.as_json:
            end = RunFinished(exit_code=error.exit_code, outputs=[], seconds=0.0, error=str(error))
            print_event(replace(end, time=present()))
        raise


def run_pipeline(
    pipeline: Pipeline,
    options: Options,
    interrupts: Interrupts,
    listeners: Sequence[Callable[[Event], None]] = (),
) -> int:
    """Run what a manifest was bound to; ``listeners`` are handed its events beside the display.

    Raises:
        RunnerError: the run could not begin. What stops it later is shown by the display, with what became
            of the run in the last line.

    """
    ends: list[RunFinished] = []
    events = Events()
    display = display_of(pipeline, as_json=options.as_json)
    events.listeners += [display.take, *listeners]
    if options.as_json:
        events.listeners.append(print_event)
    events.listeners.append(lambda event: ends.append(event) if isinstance(event, RunFinished) else None)
    with display:
        directory = run_directory(pipeline, options.runs_dir)
        given = RunOptions(options.fresh, options.wait, options.retry_failed, options.fail_fast)
        try:
            return Supervisor(pipeline, directory, events, given, interrupts, [LiveReport]).run()
        except RunnerError as error:
            if not ends:
                raise
            return error.exit_code


def print_event(event: Event) -> None:
    """Print an event for ``--json``. Where that fails the run goes on: files are the truth."""
    if not isinstance(event, Memory):
        with contextlib.suppress(OutputError):
            print_json(encode(event))
