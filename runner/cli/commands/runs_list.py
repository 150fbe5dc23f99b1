"""``runner runs list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.cli.options import RUNS, Json, RunsDir
from runner.cli.output import console, print_json, say
from runner.cli.tables import table
from runner.errors import ExitCode

if TYPE_CHECKING:
    from runner.cli.run_states import LastRun


def list_runs(runs_dir: RunsDir = RUNS, as_json: Json = False) -> int:
    """List the runs: when each last ran, its state, and its size on the disk.

    Example: runner runs list
    """
    from runner.cli.run_states import LastRun, find_directories

    runs = [LastRun.of(directory) for directory in find_directories(runs_dir)]
    if as_json:
        print_json({"runs": list(map(_as_json, runs))})
    elif runs:
        rows = map(_row, runs)
        console().print(table(("run", "last run", "items", "size", "state"), rows, right=slice(2, 4)))
    else:
        say(f"there are no runs in {runs_dir}/")
    return ExitCode.DONE


def _row(last: LastRun) -> tuple[str, ...]:
    from runner.cli.run_states import local_time
    from runner.units import format_size

    run = last.run
    return (
        last.directory.path.name,
        local_time(run.started) if run else "",
        f"{'?' if run.done is None else run.done}/{run.items}" if run else "",
        format_size(last.size),
        last.state.description,
    )


def _as_json(last: LastRun) -> dict[str, Any]:
    run = last.run
    return {
        "run": last.directory.path.name,
        "directory": last.directory.path,
        "state": last.state.word,
        "holder": last.holder,
        "time": run.started.isoformat() if run and run.started else None,
        "exit_code": run.exit_code if run else None,
        "items": run.items if run else None,
        "done": run.done if run else None,
        "failed": run.counts.failed if run else None,
        "size": last.size,
    }
