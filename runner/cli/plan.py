"""``runner plan`` and ``runner run --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.cli.common import Options, open_pipeline, print_json
from runner.errors import ExitCode
from runner.manifest.units import format_size
from runner.plan.assemble import Assembly, assemble, forced_stages, run_directory
from runner.plan.demand import Demand, demand

if TYPE_CHECKING:
    from pathlib import Path

    from runner.model.files import ComponentFiles
    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage

SHOWN_TASKS = 5


@dataclass(frozen=True)
class _Planned:
    assembly: Assembly
    demand: Demand | None
    """None where keys are pending: a model is not here, or is not hashed yet, and a plan never hashes."""


def plan(manifest: Path, options: Options) -> int:
    """Show what a run would do. Writes nothing, hashes nothing, asks no network."""
    pipeline = open_pipeline(manifest, options)
    assembly = assemble(pipeline)
    forced = forced_stages(pipeline, options.fresh)
    keys = assembly.keys(hash_missing=False)
    directory = run_directory(pipeline, options.runs_dir)
    found = demand(pipeline, keys, directory, forced) if keys is not None else None
    planned = _Planned(assembly, found)
    if options.as_json:
        print_json(_as_dict(pipeline, planned))
    else:
        _show(pipeline, planned)
    return ExitCode.DONE


def _as_dict(pipeline: Pipeline, planned: _Planned) -> dict[str, Any]:
    stages = []
    for stage in pipeline.stages:
        tasks = planned.demand.tasks[stage.index] if planned.demand else None
        todo = None
        if tasks is not None:
            todo = [{"item": t.item.id, "key": t.keyed.key, "reason": t.reason} for t in tasks]
        stages.append(
            {
                "stage": stage.name,
                "uses": stage.spec.name,
                "dtype": stage.table.dtype,
                "save_dtype": stage.table.save_dtype,
                "placement": stage.table.placement,
                "budget": stage.budget.model_dump(),
                "components": [_component(c) for c in planned.assembly.components(stage)],
                "todo": todo if todo is not None else "pending",
                "cached": planned.demand.cached[stage.index] if planned.demand else "pending",
            }
        )
    return {"name": pipeline.manifest.table.name, "items": len(pipeline.items), "stages": stages}


def _component(files: ComponentFiles) -> dict[str, Any]:
    return {
        "name": files.component.name,
        "parameters": files.parameters,
        "bytes": files.weight_bytes,
        "dtypes": files.dtypes,
    }


def _show(pipeline: Pipeline, planned: _Planned) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("stage", "uses", "component", "parameters", "on disk", "stored as", "to do", box=None)
    for column in (3, 4):
        table.columns[column].justify = "right"
    for stage in pipeline.stages:
        rows = [c for c in planned.assembly.components(stage) if c.parameters]
        cells = [
            (
                c.component.name,
                f"{c.parameters:,}",
                format_size(c.weight_bytes),
                ", ".join(c.dtypes),
            )
            for c in rows
        ]
        if not cells:
            absent = stage.spec.components and planned.assembly.model(stage) is None
            cells = [("not here yet" if absent else "none", "", "", "")]
        for n, cell in enumerate(cells):
            first = (stage.name, stage.spec.name) if n == 0 else ("", "")
            table.add_row(*first, *cell, _to_do(planned, stage) if n == 0 else "")
    console.print(table)
    _show_reasons(console.print, pipeline, planned)


def _to_do(planned: _Planned, stage: PipelineStage) -> str:
    if planned.demand is None:
        return "pending"
    todo = len(planned.demand.tasks[stage.index])
    return f"{todo} of {todo + planned.demand.cached[stage.index]}" if todo else "nothing"


def _show_reasons(show: Any, pipeline: Pipeline, planned: _Planned) -> None:
    if planned.demand is None:
        absent = [s.source for s, m in planned.assembly.models.items() if m is None]
        why = f"{', '.join(absent)} is not here yet" if absent else "the model is not hashed yet"
        show(f"pending: {why}, so what is done already cannot be told; a run fetches and hashes first")
        return
    for stage in pipeline.stages:
        for task in planned.demand.tasks[stage.index][:SHOWN_TASKS]:
            show(f"{stage.name}: {task.item.id}: {task.reason}", highlight=False)
        more = len(planned.demand.tasks[stage.index]) - SHOWN_TASKS
        if more > 0:
            show(f"{stage.name}: and {more} more", highlight=False)
    if planned.demand.nothing:
        show("nothing to do: every output is there")
