"""``runner runs clean``."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from runner.cli import completion
from runner.cli.options import RUNS, Json, RunsDir
from runner.cli.output import console, print_json, say
from runner.errors import ExitCode, LockedError, RunnerError, UsageError

if TYPE_CHECKING:
    from runner.plugins import Plugins
    from runner.rundir.directory import RunDirectory
    from runner.work.clean import CleanSelection, Found
    from runner.work.retention import RetentionSet

_NAMES = {
    "temporary": "temporary file",
    "states": "saved state",
    "logs": "log",
    "handoffs": "hand-off",
    "outputs": "output",
}


def clean_runs(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="NAME", help="The runs to clean; by default all.", autocompletion=completion.runs
        ),
    ] = None,
    older_than: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--older-than", metavar="AGE", help="Only files last written so long ago: 30d, 12h."),
    ] = None,
    handoffs: Annotated[
        bool,
        typer.Option("--handoffs", help="Also hand-offs that the manifest keeps, of finished items."),
    ] = False,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="Also the outputs, of runs that are complete.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be freed, and write nothing.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Remove what no run needs: temporary files, old logs, and hand-offs and states without a use.

    What a stopped run would continue from stays, and so does a run that is running.

    Example: runner runs clean --older-than 30d --dry-run
    """
    from runner.cli.pipelines import discover_plugins
    from runner.cli.run_states import find_directories
    from runner.work.clean import CleanSelection

    selection = CleanSelection(handoffs, outputs, _time_before(older_than))
    directories = find_directories(runs_dir, names or [])
    plugins = discover_plugins()
    all_cleaned = []
    for directory in directories:
        cleaned = _clean(directory, plugins, selection, dry_run=dry_run)
        all_cleaned.append(cleaned)
        if not as_json:
            _show(cleaned, dry_run=dry_run)
    size = sum(cleaned.size for cleaned in all_cleaned)
    if as_json:
        print_json({"dry_run": dry_run, "size": size, "runs": list(map(_as_json, all_cleaned))})
    # a run that is running is no error, unless it was named
    ignored = () if names else (ExitCode.LOCKED,)
    return max((c.code for c in all_cleaned if c.code not in ignored), default=ExitCode.DONE)


@dataclass(frozen=True)
class _Cleaned:
    """What was, or would be, freed in a run directory."""

    directory: RunDirectory
    found: Found
    size: int
    """Bytes."""
    kept: str = ""
    """Why not more was freed."""
    code: ExitCode = ExitCode.DONE


def _time_before(older_than: str | None) -> float | None:
    """The time (seconds since 1970) that is ``older_than`` ago.

    Raises:
        UsageError: it is not a duration.

    """
    from runner.units import parse_duration

    if older_than is None:
        return None
    try:
        return time.time() - parse_duration(older_than)
    except ValueError:
        raise UsageError(
            f'--older-than {older_than}: write it with its unit, such as "30d" or "12h"'
        ) from None


def _clean(
    directory: RunDirectory, plugins: Plugins, selection: CleanSelection, *, dry_run: bool
) -> _Cleaned:
    from runner.files.storage import storage_errors
    from runner.work.clean import find_removable, remove, size_of

    try:
        _check_not_running(directory)
        with contextlib.nullcontext() if dry_run else directory.locked():
            needs, kept = _needs(directory, plugins)
            with storage_errors(directory.path):
                found = find_removable(directory, needs, selection)
                size = size_of([path for paths in found.values() for path in paths])
            if not dry_run:
                remove(directory, found)
    except RunnerError as error:
        return _Cleaned(directory, {}, 0, str(error), error.exit_code)
    return _Cleaned(directory, found, size, kept)


def _check_not_running(directory: RunDirectory) -> None:
    """Check the lock without taking it, which would write it.

    Raises:
        LockedError: a run is running.

    """
    from runner.cli.run_states import state_of
    from runner.rundir.lock import held_by

    holder = held_by(directory.lock)
    if holder is not None:
        raise LockedError(f"left alone, it is {state_of(None, holder).description}")


def _needs(directory: RunDirectory, plugins: Plugins) -> tuple[RetentionSet | None, str]:
    """What must be kept, or None and why that is not known."""
    from runner.work.retention import needs_of

    try:
        return needs_of(directory, plugins), ""
    except RunnerError as error:
        first = str(error).partition("\n")[0]
        return None, f"all but temporary files and logs stays; what a run would need is not known: {first}"


def _show(cleaned: _Cleaned, *, dry_run: bool) -> None:
    from runner.units import format_size

    name = cleaned.directory.path.name
    if cleaned.kept:
        say(f"{name}: {cleaned.kept}")
    counts = [
        f"{len(paths)} {_NAMES[kind]}{'s' if len(paths) > 1 else ''}"
        for kind, paths in cleaned.found.items()
        if paths
    ]
    if counts:
        freed = "would be freed" if dry_run else "freed"
        console().print(f"{name}: {format_size(cleaned.size)} {freed}: {', '.join(counts)}")
    elif not cleaned.code:
        console().print(f"{name}: nothing to free")


def _as_json(cleaned: _Cleaned) -> dict[str, Any]:
    return {
        "run": cleaned.directory.path.name,
        "directory": cleaned.directory.path,
        "exit_code": cleaned.code,
        "size": cleaned.size,
        "freed": cleaned.found,
        "kept": cleaned.kept or None,
    }
