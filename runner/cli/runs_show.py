"""``runner runs show``: the morning after."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runner.cli.common import console, print_json
from runner.cli.runs import RunState, find_directories, local_time, size_on_disk, state_of
from runner.errors import ExitCode
from runner.events import encode
from runner.rundir.history import read_runs
from runner.rundir.lock import held_by
from runner.rundir.warnings import KEPT, line_of
from runner.units import format_duration, format_size

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from runner.rundir.history import RunHistory
    from runner.rundir.stage_history import StageHistory
    from runner.rundir.warnings import Warnings

SHOWN_FAILURES = 20
SHOWN_WARNINGS = 20


def show_run(name: str, runs_dir: Path, *, every: bool, as_json: bool) -> int:
    """Show what became of the last run, or of every run, as the journal tells.

    Raises:
        UsageError: there is no such run.

    """
    (directory,) = find_directories(runs_dir, [name])
    holder, size = held_by(directory.lock), size_on_disk(directory.path)
    runs = list(read_runs(directory.journal))
    shown = [(run, state_of(run, holder if run is runs[-1] else None)) for run in runs]
    if not every:
        shown = shown[-1:]
    if as_json:
        told = [_as_dict(run, state) for run, state in shown]
        where = {"run": name, "directory": str(directory.path), "size": size}
        print_json({**where, "holder": holder, "runs": told})
        return ExitCode.DONE
    to = console()
    to.print(f"{name}: {directory.path}, {format_size(size)}")
    if not runs:
        to.print(state_of(None, holder).told)
    for run, state in shown:
        to.print()
        _show(to, run, state)
    return ExitCode.DONE


def _as_dict(run: RunHistory, state: RunState) -> dict[str, Any]:
    counts = run.counts
    return {
        "manifest": run.manifest,
        "state": state.word,
        "exit_code": run.exit_code,
        "started": run.started.isoformat() if run.started else None,
        "seconds": run.seconds,
        "items": run.items,
        "done": run.done,
        "made": counts.made,
        "failed": counts.failed,
        "cached": counts.cached,
        "error": run.error or None,
        "outputs": run.outputs,
        "stages": [_stage_as_dict(stage) for stage in run.stages.values()],
        "failures": [asdict(failure) for failure in run.failures],
        "warned": run.warnings.count,
        "warnings": [encode(event) for group in run.warnings for event in group.first],
    }


def _stage_as_dict(stage: StageHistory) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "items": stage.items,
        "distinct": stage.distinct,
        "done": stage.done,
        "cached": stage.cached,
        "failed": stage.failed,
        "placement": stage.placement,
        "seconds": stage.seconds,
        "predicted": stage.predicted,
        "measured": stage.measured,
        "out_of_memory": [
            {name: getattr(low, name) for name in ("placement", "predicted", "measured", "next")}
            for low in stage.lowered
        ],
    }


def _show(to: Console, run: RunHistory, state: RunState) -> None:
    took = f", took {format_duration(run.seconds)}" if run.seconds is not None else ""
    to.print(f"{local_time(run.started)}{took}: {state.told}")
    to.print(f"{_items(run)} ({run.manifest})")
    if run.error:
        to.print(run.error.partition("\n")[0])
    if run.stages:
        _show_stages(to, run)
    for stage in run.stages.values():
        for lowering in stage.lowered:
            went_on = f"; went on as {lowering.next}" if lowering.next else ""
            to.print(f"{stage.name}: out of memory as {lowering.placement}{went_on}")
    for failure in run.failures[:SHOWN_FAILURES]:
        tried = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
        to.print(f"failed: {failure.stage} {failure.item}: {failure.reason}{tried}")
    if len(run.failures) > SHOWN_FAILURES:
        to.print(f"and {len(run.failures) - SHOWN_FAILURES} more; --json shows all, with tracebacks")
    _show_warnings(to, run.warnings)


def _show_warnings(to: Console, warnings: Warnings) -> None:
    """The first warnings, and how many there were of each kind where they are more."""
    shown = [event for group in warnings for event in group.first][:SHOWN_WARNINGS]
    for event in shown:
        to.print(line_of(event))
    if warnings.count > len(shown):
        to.print(f"{warnings.count} warnings in all; --json shows the first {KEPT} of each kind:")
        for group in warnings:
            to.print(f"  {group.line}")


def _items(run: RunHistory) -> str:
    counts = run.counts
    told = [f"{run.items} item{'s' if run.items != 1 else ''}: {counts.made} made"]
    if counts.cached:
        told.append(f"{counts.cached} there already")
    if counts.failed:
        told.append(f"{counts.failed} failed")
    return ", ".join(told)


def _show_stages(to: Console, run: RunHistory) -> None:
    from rich.table import Table
    from rich.text import Text

    stages = run.stages.values()
    table = Table("stage", "done", box=None, pad_edge=False)
    columns = {
        "distinct": [str(stage.distinct) if stage.distinct != stage.items else "" for stage in stages],
        "failed": [str(stage.failed or "") for stage in stages],
        "time": ["not ended" if s.seconds is None else format_duration(s.seconds) for s in stages],
        "VRAM peak (predicted)": [_peak(stage, "vram") for stage in stages],
        "RAM peak (predicted)": [_peak(stage, "ram") for stage in stages],
        "placement": [stage.placement for stage in stages],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    for name in filled:
        table.add_column(name)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for n, stage in enumerate(stages):
        cells = [stage.name, f"{stage.done}/{stage.items}", *(cells[n] for cells in filled.values())]
        table.add_row(*map(Text, cells))
    to.print(table)


def _peak(stage: StageHistory, kind: str) -> str:
    measured, predicted = stage.measured.get(kind), stage.predicted[kind]
    if not measured:
        return ""
    return format_size(measured) + (f" ({format_size(predicted)})" if predicted else "")
