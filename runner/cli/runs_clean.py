"""``runner runs clean``."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.cli.common import console, print_json, say, warn
from runner.cli.runs import find_directories, state_of
from runner.errors import ExitCode, LockedError, RunnerError, UsageError
from runner.files.storage import storage_errors
from runner.plugins import discover
from runner.rundir.lock import held_by
from runner.units import format_size, parse_duration
from runner.work.clean import CleanSelection, Found, find_removable, remove, size_of
from runner.work.retention import RetentionSet, needs_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.plugins import Plugins
    from runner.rundir.directory import RunDirectory

_WORDS = {
    "temporary": "temporary file",
    "states": "saved state",
    "logs": "log",
    "handoffs": "hand-off",
    "outputs": "output",
}


@dataclass(frozen=True)
class _Cleaned:
    """What was (or would be) freed in a run directory, and why not more."""

    directory: RunDirectory
    found: Found
    size: int
    kept: str = ""
    code: ExitCode = ExitCode.DONE


def clean(
    names: Sequence[str], runs_dir: Path, wanted: CleanSelection, *, dry_run: bool, as_json: bool
) -> int:
    """Free what no run needs any more in the named run directories, or in all.

    Raises:
        UsageError: there is no such run.

    """
    directories = find_directories(runs_dir, names)
    plugins = discover()
    warn(plugins)
    all_cleaned = []
    for directory in directories:
        cleaned = _clean(directory, plugins, wanted, dry_run=dry_run)
        all_cleaned.append(cleaned)
        if not as_json:
            _show(cleaned, dry_run=dry_run)
    size = sum(cleaned.size for cleaned in all_cleaned)
    if as_json:
        print_json({"dry_run": dry_run, "size": size, "runs": [_as_dict(cleaned) for cleaned in all_cleaned]})
    # one that runs is passed over, unless it was asked for by its name
    passed_over = () if names else (ExitCode.LOCKED,)
    return max((c.code for c in all_cleaned if c.code not in passed_over), default=ExitCode.DONE)


def before(older_than: str | None) -> float | None:
    """The time that ``--older-than`` counts back to.

    Raises:
        UsageError: it is not written as a time.

    """
    if older_than is None:
        return None
    try:
        return time.time() - parse_duration(older_than)
    except ValueError:
        raise UsageError(
            f'--older-than {older_than}: write it with its unit, such as "30d" or "12h"'
        ) from None


def _clean(directory: RunDirectory, plugins: Plugins, wanted: CleanSelection, *, dry_run: bool) -> _Cleaned:
    try:
        _check_at_rest(directory)
        with contextlib.nullcontext() if dry_run else directory.locked():
            needs, kept = _needs(directory, plugins)
            with storage_errors(directory.path):
                found = find_removable(directory, needs, wanted)
                size = size_of([path for paths in found.values() for path in paths])
            if not dry_run:
                remove(directory, found)
    except RunnerError as error:
        return _Cleaned(directory, {}, 0, str(error), error.exit_code)
    return _Cleaned(directory, found, size, kept)


def _check_at_rest(directory: RunDirectory) -> None:
    """As the lock does, for who writes nothing, not even a lock."""
    holder = held_by(directory.lock)
    if holder is not None:
        raise LockedError(f"left alone, it is {state_of(None, holder).told}")


def _needs(directory: RunDirectory, plugins: Plugins) -> tuple[RetentionSet | None, str]:
    """What must be kept; or None, and why that cannot be told."""
    try:
        return needs_of(directory, plugins), ""
    except RunnerError as error:
        first = str(error).partition("\n")[0]
        return None, f"all but temporary files and logs stays; what a run would need cannot be told: {first}"


def _show(cleaned: _Cleaned, *, dry_run: bool) -> None:
    name = cleaned.directory.path.name
    if cleaned.kept:
        say(f"{name}: {cleaned.kept}")
    counts = [
        f"{len(paths)} {_WORDS[kind]}{'s' if len(paths) > 1 else ''}"
        for kind, paths in cleaned.found.items()
        if paths
    ]
    if counts:
        freed = "would be freed" if dry_run else "freed"
        console().print(f"{name}: {format_size(cleaned.size)} {freed}: {', '.join(counts)}")
    elif not cleaned.code:
        console().print(f"{name}: nothing to free")


def _as_dict(cleaned: _Cleaned) -> dict[str, Any]:
    return {
        "run": cleaned.directory.path.name,
        "directory": str(cleaned.directory.path),
        "exit_code": int(cleaned.code),
        "size": cleaned.size,
        "freed": {kind: list(map(str, paths)) for kind, paths in cleaned.found.items()},
        "kept": cleaned.kept or None,
    }
