"""``runner run`` with several manifests: checked at once, run in turn, summed up at the end."""

from __future__ import annotations

import contextlib
import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.common import Options, console, say, warn, warn_without_effect
from runner.cli.output import OutputError, tell_bug
from runner.cli.run import print_event, run_pipeline
from runner.errors import ExitCode, RunnerError, UsageError
from runner.events import ManifestsFinished
from runner.machine.active_time import active_seconds
from runner.manifest.load import load
from runner.manifest.problems import ManifestError, Problems
from runner.pipeline.binding import Pipeline, bind_what_is_right
from runner.plan.choose import plan_stage
from runner.plugins import discover
from runner.rundir.history import RunHistory
from runner.rundir.journal import present
from runner.supervisor.signals import Interrupts
from runner.units import format_duration
from runner.work.checks import check_models
from runner.work.models import assemble, forced_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.plugins import Plugins


def expand(arguments: Sequence[Path]) -> list[Path]:
    """The manifests that arguments name, each once; patterns (``'night/*.toml'``) in the order of names.

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
    """Show the plan of each; the exit code is the largest."""
    turns = [Turn(manifest) for manifest in manifests]
    for turn in turns:
        say(f"== {turn.manifest}")
        with turn.errors_told():
            turn.code = show(turn.manifest)
    return max(turn.code or 0 for turn in turns)


def run_several(manifests: Sequence[Path], options: Options) -> int:
    """Run manifests in turn; the exit code is the largest. Only an interruption keeps one from its turn.

    All are checked before the first starts. What is wrong is told at once, and that manifest is left out;
    what does not fit, or is not on this machine, is told at once too, and may be mended until its turn.
    """
    turns = [Turn(manifest) for manifest in manifests]
    interrupts = Interrupts()
    with interrupts.caught():
        plugins = discover()
        warn(plugins)
        for turn in turns:
            turn.check(plugins, options)
        _warn_of_sharing(turns)
        for turn in turns:
            if turn.code is None and turn.pipeline is not None:
                turn.take(turn.pipeline, options, interrupts)
            if turn.code == ExitCode.INTERRUPTED:
                break
    code = max(turn.code for turn in turns if turn.code is not None)
    _show(turns)
    if options.as_json:
        told = [turn.as_dict() for turn in turns]
        print_event(ManifestsFinished(exit_code=int(code), manifests=told, time=present()))
    return code


def _warn_of_sharing(turns: Sequence[Turn]) -> None:
    """Tell of manifests with one name: they share what is done, and the page and the list show the last."""
    named: dict[str, list[str]] = {}
    for turn in turns:
        if turn.pipeline is not None:
            named.setdefault(turn.pipeline.manifest.table.name, []).append(str(turn.manifest))
    for name, manifests in named.items():
        if len(manifests) > 1:
            say(f"warning: {' and '.join(manifests)} have one name, and so one run directory: '{name}'")


@dataclass
class Turn:
    """One manifest of several, and what became of it."""

    manifest: Path
    pipeline: Pipeline | None = None
    history: RunHistory = field(default_factory=RunHistory)
    seconds: float | None = None
    code: int | None = None
    """None as long as nothing was wrong and it had no turn."""
    reason: str = ""

    def check(self, plugins: Plugins, options: Options) -> None:
        """Bind the manifest, and tell what is wrong with it, or lacking for it."""
        problems, missing = Problems(), Problems()
        with self.errors_told():
            loaded = load(self.manifest, options.sets, options.prompts)
            pipeline = bind_what_is_right(loaded, plugins, problems)
            check_models(pipeline, missing)
            if problems.found:
                raise ManifestError([*problems.found, *missing.found])
            forced_stages(pipeline, options.fresh)
            warn_without_effect(pipeline)
            self.pipeline = pipeline
        if self.code is not None or self.pipeline is None:
            say(f"{self.manifest} is left out")
            return
        outlook = Turn(self.manifest)
        with outlook.errors_told():
            missing.check()
            _foresee(self.pipeline)
        if outlook.code is not None:
            say(
                f"{self.manifest} would stop at that, if it has something to do; it has its turn all the same"
            )

    def take(self, pipeline: Pipeline, options: Options, interrupts: Interrupts) -> None:
        """Run it."""
        say(f"== {self.manifest}")
        started = active_seconds()
        try:
            with self.errors_told():
                self.code = run_pipeline(pipeline, options, interrupts, [self.history.take])
        except KeyboardInterrupt:
            self.code, self.reason = ExitCode.INTERRUPTED, "interrupted"
        self.seconds = round(active_seconds() - started, 3)
        self.reason = self.reason or self.history.reason

    @contextlib.contextmanager
    def errors_told(self) -> Iterator[None]:
        """Tell of an error and remember it: the other manifests go on."""
        try:
            yield
        except OutputError:  # the others' would be lost too
            raise
        except RunnerError as error:
            say(f"{error.prefix}{error}")
            self.code, self.reason = error.exit_code, str(error).partition("\n")[0]
        except Exception as error:
            self.code, self.reason = tell_bug(), f"{type(error).__name__}: {error}".partition("\n")[0]

    def as_dict(self) -> dict[str, Any]:
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


def _foresee(pipeline: Pipeline) -> None:
    """What a run looks at before its first stage.

    Raises:
        RunnerError: it would stop there.

    """
    for stage in pipeline.stages:
        _ = stage.device  # raises where it is not here
    assembly = assemble(pipeline)
    for stage in pipeline.stages:
        plan_stage(pipeline, stage, assembly.shapes(stage)).check()


def _show(turns: Sequence[Turn]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("manifest", "done", "failed", "cached", "time", "exit code", "", box=None, pad_edge=False)
    for column in table.columns[1:6]:
        column.justify = "right"
    for turn in turns:
        counts = turn.history.counts
        numbers = (counts.made, counts.failed, counts.cached) if turn.history.started else (None, None, None)
        took = None if turn.seconds is None else format_duration(turn.seconds)
        told = ("-" if cell is None else str(cell) for cell in (*numbers, took, turn.code))
        reason = turn.reason if turn.code is not None else "did not have its turn"
        table.add_row(*map(Text, (str(turn.manifest), *told, reason)))
    say("")
    console(stderr=True).print(table)
