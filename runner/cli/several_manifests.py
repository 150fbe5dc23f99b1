"""Several manifests for one command: all are checked first, then run in turn, with a summary at the end."""

from __future__ import annotations

import contextlib
import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.measuring import MeasuringMessages
from runner.cli.output import OutputError, console, report_bug, say, say_error
from runner.cli.pipelines import discover_plugins, warn_of_overrides
from runner.cli.running import RunRequest, print_event, run_pipeline
from runner.cli.tables import table
from runner.errors import ExitCode, RunnerError, UsageError
from runner.events import ManifestsFinished
from runner.machine.active_time import active_seconds
from runner.manifest.load import load
from runner.manifest.problems import ManifestError, Problems
from runner.pipeline.binding import Pipeline, bind_valid_parts
from runner.plan.choose import plan_stages
from runner.rundir.history import RunHistory
from runner.rundir.journal import present
from runner.supervisor.requests.measuring import measuring
from runner.supervisor.signals import Interrupts
from runner.units import format_duration
from runner.work.checks import check_models
from runner.work.demand import forced_stages
from runner.work.models import resolve_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.plugins import Plugins


def expand(arguments: Sequence[Path]) -> list[Path]:
    """The manifests of arguments, each once. Those that match a pattern (``'night/*.toml'``) are sorted.

    Raises:
        UsageError: a pattern matches nothing.

    """
    manifests: dict[Path, Path] = {}
    for argument in arguments:
        found = [argument]
        if glob.has_magic(str(argument)) and not argument.exists():
            found = [Path(name) for name in sorted(glob.glob(str(argument), recursive=True))]  # noqa: PTH207 - takes absolute ones too
            if not found:
                raise UsageError(f"no manifest matches '{argument}'")
        for path in found:
            manifests.setdefault(path.resolve(), path)
    return list(manifests.values())


def plan_several(manifests: Sequence[Path], show: Callable[[Path], int]) -> int:
    """Show the plan of each manifest; returns the largest exit code."""
    turns = [Turn(manifest) for manifest in manifests]
    for turn in turns:
        say(f"== {turn.manifest}")
        with turn.errors_recorded():
            turn.code = show(turn.manifest)
    return max(turn.code or 0 for turn in turns)


def run_several(manifests: Sequence[Path], request: RunRequest) -> int:
    """Run manifests in turn; returns the largest exit code. Only an interruption stops the rest.

    All are checked before the first starts. A manifest with a mistake is left out. One that does not fit, or
    whose model is not on this machine, gets a message and still has its turn: it may be possible by then.
    """
    turns = [Turn(manifest) for manifest in manifests]
    interrupts = Interrupts()
    with interrupts.caught():
        plugins = discover_plugins()
        for turn in turns:
            turn.check(plugins, request)
        _warn_of_shared_directories(turns)
        for turn in turns:
            if turn.code is None and turn.pipeline is not None:
                turn.run(turn.pipeline, request, interrupts)
            if turn.code == ExitCode.INTERRUPTED:
                break
    code = max(turn.code for turn in turns if turn.code is not None)
    _show(turns)
    if request.as_json:
        results = [turn.as_json() for turn in turns]
        print_event(ManifestsFinished(exit_code=int(code), manifests=results, time=present()))
    return code


def _warn_of_shared_directories(turns: Sequence[Turn]) -> None:
    """Warn of manifests with the same name: they share a run directory, whose page shows the last."""
    named: dict[str, list[str]] = {}
    for turn in turns:
        if turn.pipeline is not None:
            named.setdefault(turn.pipeline.manifest.table.name, []).append(str(turn.manifest))
    for name, manifests in named.items():
        if len(manifests) > 1:
            say(f"warning: {' and '.join(manifests)} have one name, and so one run directory: '{name}'")


@dataclass
class Turn:
    """One manifest of several, and its result."""

    manifest: Path
    pipeline: Pipeline | None = None
    history: RunHistory = field(default_factory=RunHistory)
    seconds: float | None = None
    code: int | None = None
    """The exit code; None before its turn, if the check found no mistake."""
    reason: str = ""

    def check(self, plugins: Plugins, request: RunRequest) -> None:
        """Bind the manifest, and print its mistakes and what it lacks on this machine."""
        problems, missing = Problems(), Problems()
        with self.errors_recorded():
            loaded = load(self.manifest, request.sets, request.prompts, request.executor)
            pipeline = bind_valid_parts(loaded, plugins, problems)
            if pipeline.executor is None:
                check_models(pipeline, missing)
            if problems.found:
                raise ManifestError([*problems.found, *missing.found])
            forced_stages(pipeline, request.options.fresh)
            warn_of_overrides(pipeline)
            self.pipeline = pipeline
        if self.code is not None or self.pipeline is None:
            say(f"{self.manifest} is left out")
            return
        outlook = Turn(self.manifest)  # prints the errors, and leaves this turn as it is
        with outlook.errors_recorded():
            missing.check()
            if self.pipeline.executor is None:
                _check_machine(self.pipeline)
        if outlook.code is not None:
            say(
                f"{self.manifest} would stop at that, if it has something to do; it has its turn all the same"
            )

    def run(self, pipeline: Pipeline, request: RunRequest, interrupts: Interrupts) -> None:
        """Run the manifest and record its result."""
        say(f"== {self.manifest}")
        started = active_seconds()
        try:
            with self.errors_recorded():
                self.code = run_pipeline(pipeline, request, interrupts, [self.history.take])
        except KeyboardInterrupt:
            self.code, self.reason = ExitCode.INTERRUPTED, "interrupted"
        self.seconds = round(active_seconds() - started, 3)
        self.reason = self.reason or self.history.reason

    @contextlib.contextmanager
    def errors_recorded(self) -> Iterator[None]:
        """Print and record an error, so that the other manifests still run."""
        try:
            yield
        except OutputError:  # the output of the others would be lost too
            raise
        except RunnerError as error:
            say_error(error)
            self.code, self.reason = error.exit_code, str(error).partition("\n")[0]
        except Exception as error:
            self.code, self.reason = report_bug(), f"{type(error).__name__}: {error}".partition("\n")[0]

    def as_json(self) -> dict[str, Any]:
        counts = self.history.counts
        return {
            "manifest": str(self.manifest),
            "run": self.pipeline.manifest.table.name if self.pipeline else None,
            "done": counts.made,
            "failed": counts.failed,
            "cached": counts.cached,
            "seconds": self.seconds,
            "exit_code": None if self.code is None else int(self.code),
            "reason": self.reason or None,
        }


def _check_machine(pipeline: Pipeline) -> None:
    """Check devices and memory, as a run does before its first stage.

    Raises:
        RunnerError: the run would stop there.

    """
    for stage in pipeline.stages:
        _ = stage.device  # raises where it is not here
    resolved = resolve_models(pipeline)
    with measuring(MeasuringMessages()):
        plans = plan_stages(pipeline, pipeline.stages, resolved.shapes)
    for plan in plans:
        plan.check()


def _show(turns: Sequence[Turn]) -> None:
    """Print a table of the results."""
    columns = ("manifest", "done", "failed", "cached", "time", "exit code", "")
    say("")
    console(stderr=True).print(table(columns, map(_row, turns), right=slice(1, 6)))


def _row(turn: Turn) -> list[str]:
    counts = turn.history.counts
    numbers = (counts.made, counts.failed, counts.cached) if turn.history.started else (None, None, None)
    seconds = None if turn.seconds is None else format_duration(turn.seconds)
    cells = ("-" if cell is None else str(cell) for cell in (*numbers, seconds, turn.code))
    return [str(turn.manifest), *cells, turn.reason if turn.code is not None else "did not have its turn"]
