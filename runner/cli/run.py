"""``runner run``."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.cli.common import Options, open_pipeline, print_json
from runner.cli.display import display_of
from runner.errors import RunnerError
from runner.journal import Event, Events, now
from runner.plan.assemble import run_directory
from runner.supervisor.run import Supervisor, Wishes
from runner.supervisor.signals import Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.plan.pipeline import Pipeline


def run(manifest: Path, options: Options) -> int:
    """Run a manifest and show how it goes."""
    with always_finished(options) as take:
        return run_pipeline(open_pipeline(manifest, options), options, Interrupts(), [take])


@contextmanager
def always_finished(options: Options) -> Iterator[Callable[[Event], None]]:
    """Print ``run_finished`` for ``--json`` after an error, where the run itself did not come to that.

    Yields a listener for the run's events.
    """
    kinds: set[str] = set()  # not the events themselves: a night has millions
    try:
        yield lambda event: kinds.add(event["event"])
    except RunnerError as error:
        if options.as_json and "run_finished" not in kinds:
            end = {"exit_code": int(error.exit_code), "outputs": [], "seconds": 0.0, "error": str(error)}
            print_json({"event": "run_finished", "time": now(), **end})  # it could not begin
        raise


def run_pipeline(
    pipeline: Pipeline,
    options: Options,
    interrupts: Interrupts,
    listeners: Sequence[Callable[[Event], None]] = (),
) -> int:
    """Run what a manifest was bound to; ``listeners`` are told of it beside the display."""
    events = Events()
    display = display_of(pipeline)
    events.listeners += [display.take, *listeners]
    if options.as_json:
        events.listeners.append(print_event)
    with display:
        directory = run_directory(pipeline, options.runs_dir)
        wishes = Wishes(options.fresh, options.wait, options.retry_failed, options.fail_fast)
        return Supervisor(pipeline, directory, events, wishes, interrupts).run()


def print_event(event: Event) -> None:
    """Print an event for ``--json``."""
    if event["event"] == "memory":
        return
    try:
        print_json(event)
    except OSError:  # the reader has gone; the run goes on, for files are the truth
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
