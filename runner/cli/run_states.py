"""The states of runs, for ``runner runs`` and the completion of shells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import EXIT_MEANINGS, ExitCode, UsageError
from runner.manifest.problems import did_you_mean
from runner.rundir.directory import RunDirectory
from runner.rundir.history import RunHistory, read_runs
from runner.rundir.lock import held_by, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path


class RunState(NamedTuple):
    """The state of a run."""

    word: str
    """For programs."""
    description: str
    """For people."""


@dataclass(frozen=True)
class LastRun:
    """The last run in a run directory; ``run`` is None before the first."""

    directory: RunDirectory
    run: RunHistory | None
    holder: dict[str, Any] | None
    """The process that uses the directory now, as its lock describes it."""
    size: int
    """Bytes of the directory."""

    @classmethod
    def of(cls, directory: RunDirectory) -> LastRun:
        last = None
        for last in read_runs(directory.journal):  # noqa: B007 - only the last is used
            pass
        return cls(directory, last, held_by(directory.lock), size_on_disk(directory.path))

    @property
    def state(self) -> RunState:
        return state_of(self.run, self.holder)


def state_of(run: RunHistory | None, holder: dict[str, Any] | None) -> RunState:
    """The state of a run; ``holder`` describes the process that uses its directory now, if there is one."""
    at = _progress(run) if run else ""
    if holder is not None:
        who = f": {in_words(holder)}" if holder else ""
        return RunState("running", f"running{at}{who}")
    if run is None:
        return RunState("empty", "no run yet")
    match run.exit_code:
        case None:
            return RunState("killed", f"killed{at}; the next run goes on from there")
        case ExitCode.DONE:
            return RunState("done", "done")
        case ExitCode.ITEMS_FAILED:
            return RunState("failed", f"{run.counts.failed} failed")
        case ExitCode.INTERRUPTED:
            return RunState("interrupted", f"interrupted{at}; the next run goes on from there")
        case code:
            meaning = f" ({EXIT_MEANINGS[ExitCode(code)]})" if code in set(ExitCode) else ""
            return RunState("stopped", f"stopped{at} with exit code {code}{meaning}")


def _progress(run: RunHistory) -> str:
    """The stage that a run is in, or was stopped in, and how far."""
    stage = run.current
    return f" at {stage.name} {stage.done + stage.failed}/{stage.items}" if stage else ""


def find_directories(runs_dir: Path, names: Sequence[str] = ()) -> list[RunDirectory]:
    """The run directories with these names; all, if none is given.

    Raises:
        UsageError: there is no run of a name.

    """
    there = {path.name: path for path in _subfolders(runs_dir) if _is_run_directory(path)}
    for name in names:
        if name not in there:
            known = f" (there are: {', '.join(there)})" if there else ""
            raise UsageError(f"there is no run '{name}' in {runs_dir}/{did_you_mean(name, there)}{known}")
    return [RunDirectory(there[name]) for name in names or there]


def _subfolders(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield folder.absolute() / entry.name


def _is_run_directory(path: Path) -> bool:
    return any((path / name).is_file() for name in (".lock", "manifest.toml", "journal.jsonl"))


def size_on_disk(folder: Path) -> int:
    """Bytes of all files in a folder; hard links count once."""
    files: dict[tuple[int, int], int] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.lstat(os.path.join(where, name))  # noqa: PTH118 - many files
            except FileNotFoundError:  # a run removes as it goes
                continue
            files[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(files.values())


def local_time(time: datetime | None) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M") if time else ""
