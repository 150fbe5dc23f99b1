"""``runner runs show``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import completion
from runner.cli.options import RUNS, Json, RunsDir
from runner.cli.output import console, print_json
from runner.cli.tables import table
from runner.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from runner.cli.run_states import RunState
    from runner.rundir.history import RunHistory
    from runner.rundir.node_history import NodeHistory
    from runner.rundir.stage_history import StageHistory
    from runner.rundir.warnings import Warnings

SHOWN_FAILURES = 20
SHOWN_WARNINGS = 20


def show_run(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The run, as `runner runs list` names it.", autocompletion=completion.runs
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help="Show every run in the journal; by default only the last.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Show the results of a run: items done and failed, errors, times, measured and predicted peaks.

    Example: runner runs show demo
    """
    from runner.cli.run_states import find_directories, size_on_disk, state_of
    from runner.rundir.history import read_runs
    from runner.rundir.lock import held_by
    from runner.units import format_size

    (directory,) = find_directories(runs_dir, [name])
    holder, size = held_by(directory.lock), size_on_disk(directory.path)
    runs = list(read_runs(directory.journal))
    shown = [(run, state_of(run, holder if run is runs[-1] else None)) for run in runs]
    if not every:
        shown = shown[-1:]
    if as_json:
        found = [_as_json(run, state) for run, state in shown]
        print_json({"run": name, "directory": directory.path, "size": size, "holder": holder, "runs": found})
        return ExitCode.DONE
    to = console()
    to.print(f"{name}: {directory.path}, {format_size(size)}")
    if not runs:
        to.print(state_of(None, holder).description)
    for run, state in shown:
        to.print()
        _show(to, run, state)
    return ExitCode.DONE


def _as_json(run: RunHistory, state: RunState) -> dict[str, Any]:
    from runner.events import encode

    counts = run.counts
    return {
        "manifest": run.manifest,
        "state": state.word,
        "exit_code": run.exit_code,
        "started": run.started.isoformat() if run.started else None,
        "seconds": run.seconds,
        "items": run.items,
        "loras": run.loras,
        "done": run.done,
        "made": counts.made,
        "failed": counts.failed,
        "cached": counts.cached,
        "error": run.error or None,
        "outputs": run.outputs,
        "stages": [_stage_as_json(stage) for stage in run.stages.values()],
        "nodes": [_node_as_json(node) for node in run.nodes.all.values()],
        "failures": [asdict(failure) for failure in run.failures],
        "warned": run.warnings.count,
        "warnings": [encode(event) for group in run.warnings for event in group.first],
    }


def _stage_as_json(stage: StageHistory) -> dict[str, Any]:
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
            {name: getattr(fallback, name) for name in ("placement", "predicted", "measured", "next")}
            for fallback in stage.lowered
        ],
    }


def _node_as_json(node: NodeHistory) -> dict[str, Any]:
    names = ("name", "host", "device", "state", "reason", "done", "failed", "seconds")
    shares = {stage: {"done": share.done, "failed": share.failed} for stage, share in node.shares.items()}
    return {**{name: getattr(node, name) for name in names}, "stages": shares}


def _show(to: Console, run: RunHistory, state: RunState) -> None:
    from runner.cli.run_states import local_time
    from runner.units import format_duration

    took = f", took {format_duration(run.seconds)}" if run.seconds is not None else ""
    to.print(f"{local_time(run.started)}{took}: {state.description}")
    to.print(f"{_items(run)} ({run.manifest})")
    if run.loras:
        to.print(f"LoRA: {', '.join(f'{name} ({weight:g})' for name, weight in run.loras.items())}")
    if run.error:
        to.print(run.error.partition("\n")[0])
    if run.stages:
        _show_stages(to, run)
    if run.nodes.all:
        _show_nodes(to, run)
    for stage in run.stages.values():
        for fallback in stage.lowered:
            then = f"; went on as {fallback.next}" if fallback.next else ""
            to.print(f"{stage.name}: out of memory as {fallback.placement}{then}")
    for failure in run.failures[:SHOWN_FAILURES]:
        attempts = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
        to.print(f"failed: {failure.stage} {failure.item}: {failure.reason}{attempts}")
    if len(run.failures) > SHOWN_FAILURES:
        to.print(f"and {len(run.failures) - SHOWN_FAILURES} more; --json shows all, with tracebacks")
    _show_warnings(to, run.warnings)


def _show_warnings(to: Console, warnings: Warnings) -> None:
    """The first warnings; if there are more, also a line for each kind."""
    from runner.rundir.warnings import KEPT, line_of

    shown = [event for group in warnings for event in group.first][:SHOWN_WARNINGS]
    for event in shown:
        to.print(line_of(event))
    if warnings.count > len(shown):
        to.print(f"{warnings.count} warnings in all; --json shows the first {KEPT} of each kind:")
        for group in warnings:
            to.print(f"  {group.line}")


def _items(run: RunHistory) -> str:
    counts = run.counts
    parts = [f"{run.items} item{'s' if run.items != 1 else ''}: {counts.made} made"]
    if counts.cached:
        parts.append(f"{counts.cached} there already")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    return ", ".join(parts)


def _show_stages(to: Console, run: RunHistory) -> None:
    """A table of the stages; columns without a value are left out."""
    from runner.units import format_duration

    stages = run.stages.values()
    columns = {
        "stage": [stage.name for stage in stages],
        "done": [f"{stage.done}/{stage.items}" for stage in stages],
        "distinct": [str(stage.distinct) if stage.distinct != stage.items else "" for stage in stages],
        "failed": [str(stage.failed or "") for stage in stages],
        "time": ["not ended" if s.seconds is None else format_duration(s.seconds) for s in stages],
        "VRAM peak (predicted)": [_peak(stage, "vram") for stage in stages],
        "RAM peak (predicted)": [_peak(stage, "ram") for stage in stages],
        "placement": [stage.placement for stage in stages],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    rows = zip(*filled.values(), strict=True)
    to.print(table(list(filled), rows, right=slice(1, -1)))


def _show_nodes(to: Console, run: RunHistory) -> None:
    """A table of the nodes: what each made, and how long its items took."""
    from runner.units import format_duration

    rows = [
        (
            node.name,
            node.device,
            str(node.done),
            str(node.failed or ""),
            format_duration(node.seconds),
            f"{node.state}: {node.reason.partition(chr(10))[0]}" if node.reason else node.state,
        )
        for node in run.nodes.all.values()
    ]
    to.print(table(("node", "device", "done", "failed", "items took", ""), rows, right=slice(2, 5)))


def _peak(stage: StageHistory, kind: str) -> str:
    from runner.units import format_size

    measured, predicted = stage.measured.get(kind), stage.predicted[kind]
    if not measured:
        return ""
    return format_size(measured) + (f" ({format_size(predicted)})" if predicted else "")
