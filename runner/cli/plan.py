"""``runner plan`` and ``runner run --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.cli.common import Options, console, open_pipeline, print_json, say
from runner.cli.plan_table import show_memory
from runner.errors import ExitCode
from runner.plan.assemble import Assembly, assemble, forced_stages, run_directory
from runner.plan.demand import Demand, demand
from runner.plan.memory.choose import StagePlan, plan_stage
from runner.plan.memory.display import as_dict
from runner.plan.memory.duration import Duration, duration_of, in_all

if TYPE_CHECKING:
    from pathlib import Path

    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage

SHOWN_TASKS = 5


@dataclass(frozen=True)
class _Planned:
    assembly: Assembly
    stages: list[StagePlan]
    demand: Demand | None
    """None where keys are pending: a model is not here, or is not hashed yet, and a plan never hashes."""
    durations: list[Duration]
    """Of each stage, for what there is to do; where that is pending, for all items."""


def plan(manifest: Path, options: Options) -> int:
    """Show what a run would do and take. Writes nothing in the project, hashes nothing.

    Of a hub model that is not here, headers and configs are fetched: kilobytes.
    """
    pipeline = open_pipeline(manifest, options)
    assembly = assemble(pipeline)
    forced = forced_stages(pipeline, options.fresh)
    keys = assembly.keys(hash_missing=False)
    directory = run_directory(pipeline, options.runs_dir)
    found = demand(pipeline, keys, directory, forced) if keys is not None else None
    stages = [plan_stage(pipeline, stage, assembly.shapes(stage)) for stage in pipeline.stages]
    planned = _Planned(assembly, stages, found, [_duration(stage, found) for stage in stages])
    if options.as_json:
        print_json(_as_dict(pipeline, planned))
    else:
        _show(pipeline, planned)
    misfits = [stage.misfit for stage in stages if stage.misfit]
    for misfit in misfits:
        say(f"error: {misfit}")
    return ExitCode.BUDGET if misfits else ExitCode.DONE


def _duration(plan: StagePlan, found: Demand | None) -> Duration:
    if found is None:
        whole = duration_of(plan, list(plan.need.each))
        return replace(whole, basis=f"for all items; {whole.basis}")
    return duration_of(plan, [task.item.id for task in found.tasks[plan.stage.index]])


def _as_dict(pipeline: Pipeline, planned: _Planned) -> dict[str, Any]:
    stages = []
    for stage, memory in zip(pipeline.stages, planned.stages, strict=True):
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
                "budget": stage.budget.model_dump(),
                **as_dict(memory),
                "seconds": planned.durations[stage.index].seconds,
                "seconds_from": planned.durations[stage.index].basis,
                "todo": todo if todo is not None else "pending",
                "cached": planned.demand.cached[stage.index] if planned.demand else "pending",
            }
        )
    return {
        "name": pipeline.manifest.table.name,
        "items": len(pipeline.items),
        "seconds": in_all(planned.durations),
        "stages": stages,
    }


def _show(pipeline: Pipeline, planned: _Planned) -> None:
    shown = console()
    todo = [_to_do(planned, stage) for stage in pipeline.stages]
    show_memory(shown, planned.stages, todo, planned.durations)
    _show_reasons(shown.print, pipeline, planned)


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
            show(f"{stage.name}: {task.item.id}: {task.reason}")
        more = len(planned.demand.tasks[stage.index]) - SHOWN_TASKS
        if more > 0:
            show(f"{stage.name}: and {more} more")
    if planned.demand.nothing:
        show("nothing to do: every output is there")
