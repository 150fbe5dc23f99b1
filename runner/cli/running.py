"""Running a pipeline with its display: what ``run`` and ``demo`` have in common."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.display import display_of
from runner.cli.output import OutputError, kept_for_data, print_json
from runner.cli.pipelines import open_pipeline
from runner.errors import RunnerError
from runner.events import Event, Memory, RunFinished, encode
from runner.report.live import LiveReport
from runner.rundir.journal import Events, present
from runner.supervisor.local import LocalExecutor
from runner.supervisor.run import RunOptions, Supervisor
from runner.supervisor.signals import Interrupts
from runner.work.work import run_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.pipeline.binding import Pipeline
    from runner.supervisor.executor import StageExecutor


@dataclass(frozen=True)
class RunRequest:
    """What the command line says about a run besides its manifest."""

    sets: Sequence[str] = ()
    prompts: Sequence[str] = ()
    runs_dir: Path = Path("runs")
    as_json: bool = False
    options: RunOptions = field(default_factory=RunOptions)
    executor: str | None = None
    """In place of the manifest's."""


def run_manifest(manifest: Path, request: RunRequest) -> int:
    """Run a manifest and show its progress; returns the exit code."""
    with end_event_on_error(as_json=request.as_json):
        pipeline = open_pipeline(manifest, request.sets, request.prompts, request.executor)
        return run_pipeline(pipeline, request, Interrupts())


@contextlib.contextmanager
def end_event_on_error(*, as_json: bool) -> Iterator[None]:
    """With ``as_json``, print ``run_finished`` for an error that keeps the run from starting."""
    try:
        yield
    except RunnerError as error:
        if as_json:
            end = RunFinished(exit_code=error.exit_code, outputs=[], seconds=0.0, error=str(error))
            print_event(replace(end, time=present()))
        raise


def run_pipeline(
    pipeline: Pipeline,
    request: RunRequest,
    interrupts: Interrupts,
    listeners: Sequence[Callable[[Event], None]] = (),
) -> int:
    """Run a pipeline and show its progress; ``listeners`` get its events too. Returns the exit code.

    Raises:
        RunnerError: the run could not start. The display shows later errors, and the result as its last line.

    """
    ends: list[RunFinished] = []
    events = Events()
    display = display_of(pipeline, as_json=request.as_json)
    events.listeners += [display.take, *listeners]
    if request.as_json:
        events.listeners.append(print_event)
    events.listeners.append(lambda event: ends.append(event) if isinstance(event, RunFinished) else None)
    # libraries of an executor have threads of their own, which print
    with display, kept_for_data() if pipeline.executor else contextlib.nullcontext():
        directory = run_directory(pipeline, request.runs_dir)
        try:
            executor = executor_of(pipeline)
            supervisor = Supervisor(
                pipeline, directory, events, request.options, interrupts, [LiveReport], executor
            )
            return supervisor.run()
        except RunnerError as error:
            if not ends:
                raise
            return error.exit_code


def executor_of(pipeline: Pipeline) -> Callable[[Pipeline], StageExecutor]:
    """Who makes the stages: this machine, or the executor that the manifest chooses."""
    if pipeline.executor is None:
        return LocalExecutor
    from runner.remote.fleet import Fleet

    return Fleet


def print_event(event: Event) -> None:
    """Print an event for ``--json``. If that fails the run goes on: its files have the results."""
    if not isinstance(event, Memory):
        with contextlib.suppress(OutputError):
            print_json(encode(event))
