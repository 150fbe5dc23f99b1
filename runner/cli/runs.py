"""``runner runs list``, and what the commands about runs share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.cli.common import console, print_json, say
from runner.errors import EXIT_MEANINGS, ExitCode, UsageError
from runner.manifest.problems import did_you_mean
from runner.rundir.directory import RunDirectory
from runner.rundir.history import RunHistory, read_runs
from runner.rundir.lock import held_by, in_words
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True)
class RunState:
    """How a run stands: a word for programs, and words for people."""

    word: str
    told: str


def list_runs(runs_dir: Path, *, as_json: bool) -> int:
    """Show every run directory with how its last run stands, as the journals tell."""
    rows = [_Row.of(directory) for directory in find_directories(runs_dir)]
    if as_json:
        print_json({"runs": [row.as_dict() for row in rows]})
    elif rows:
        _show(rows)
    else:
        say(f"there are no runs in {runs_dir}/")
    return ExitCode.DONE


@dataclass(frozen=True)
class _Row:
    directory: RunDirectory
    run: RunHistory | None
    holder: dict[str, Any] | None
    size: int

    @classmethod
    def of(cls, directory: RunDirectory) -> _Row:
        run = None
        for run in read_runs(directory.journal):  # noqa: B007 - the last is wanted
            pass
        return cls(directory, run, held_by(directory.lock), size_on_disk(directory.path))

    def as_dict(self) -> dict[str, Any]:
        run = self.run
        return {
            "run": self.directory.path.name,
            "directory": str(self.directory.path),
            "state": state_of(run, self.holder).word,
            "holder": self.holder,
            "time": run.started.isoformat() if run and run.started else None,
            "exit_code": run.exit_code if run else None,
            "items": run.items if run else None,
            "done": run.done if run else None,
            "failed": run.counts.failed if run else None,
            "size": self.size,
        }


def _show(rows: Sequence[_Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "last run", "items", "size", "state", box=None, pad_edge=False)
    for column in table.columns[2:4]:
        column.justify = "right"
    for row in rows:
        cells = (
            row.directory.path.name,
            local_time(row.run.started) if row.run else "",
            f"{'?' if row.run.done is None else row.run.done}/{row.run.items}" if row.run else "",
            format_size(row.size),
            state_of(row.run, row.holder).told,
        )
        table.add_row(*map(Text, cells))
    console().print(table)


def state_of(run: RunHistory | None, holder: dict[str, Any] | None) -> RunState:
    """How a run stands, given who holds its directory now."""
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
    """Where a run is, or was cut off."""
    stage = run.current
    return f" at {stage.name} {stage.done + stage.failed}/{stage.items}" if stage else ""


def find_directories(runs_dir: Path, names: Sequence[str] = ()) -> list[RunDirectory]:
    """The run directories of these names; all, if none is given.

    Raises:
        UsageError: there is none of a name.

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
    """Bytes of all files in a folder; one with several names counts once."""
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
