"""``runner plan`` and ``runner run --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.cli.common import Options, open_pipeline, print_json, say
from runner.cli.plan_table import show_memory
from runner.errors import ExitCode, RunnerError
from runner.model.hub import damage_in_cache
from runner.model.hub_errors import is_offline, title
from runner.plan.assemble import Assembly, assemble, forced_stages, run_directory
from runner.plan.demand import Demand, demand
from runner.plan.memory.choose import StagePlan, plan_stage
from runner.plan.memory.display import as_dict

if TYPE_CHECKING:
    from pathlib import Path

    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage

SHOWN_TASKS = 5
SHORT = 12  # characters of a commit, as people write them


@dataclass(frozen=True)
class _Planned:
    assembly: Assembly
    stages: list[StagePlan]
    demand: Demand | None
    """None where keys are pending: a model is not here, or is not hashed yet, and a plan never hashes."""


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
    planned = _Planned(assembly, stages, found)
    unreachable = _unreachable(assembly)
    if options.as_json:
        print_json(_as_dict(pipeline, planned))
    else:
        _show(pipeline, planned)
    misfits = [stage.misfit for stage in stages if stage.misfit]
    for misfit in misfits:
        say(f"error: {misfit}")
    if unreachable:
        say(f"error: {unreachable}")
        return ExitCode.MODEL
    return ExitCode.BUDGET if misfits else ExitCode.DONE


def _unreachable(assembly: Assembly) -> str:
    """Why a run could not fetch what is not here, if that is so: it is planned all the same."""
    try:
        assembly.refuse_unreachable()
    except RunnerError as error:
        return str(error)
    return ""


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
                "todo": todo if todo is not None else "pending",
                "cached": planned.demand.cached[stage.index] if planned.demand else "pending",
            }
        )
    return {
        "name": pipeline.manifest.table.name,
        "items": len(pipeline.items),
        "models": _models(planned.assembly),
        "stages": stages,
    }


def _models(assembly: Assembly) -> list[dict[str, Any]]:
    """Where each model comes from, and for one on the hub of which commit the plan speaks."""
    commits = assembly.commits()
    return [
        {**source.model_dump(), "commit": commits.get(source), "here": model is not None}
        for source, model in assembly.models.items()
    ]


def _show(pipeline: Pipeline, planned: _Planned) -> None:
    from rich.console import Console

    console = Console()
    todo = [_to_do(planned, stage) for stage in pipeline.stages]
    show_memory(console, planned.stages, todo)
    for line in _model_lines(planned.assembly):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _show_reasons(console.print, pipeline, planned)


def _model_lines(assembly: Assembly) -> list[str]:
    """Of which commit of each model on the hub the plan speaks, and what is loaded otherwise than asked."""
    lines = []
    for source, commit in assembly.commits().items():
        where = "in the hub's cache" if assembly.models[source] else "as the hub last said"
        if commit:
            moves = "" if commit == source.revision else "; `runner fetch --refresh` asks where it stands now"
            lines.append(f"{title(source)}: commit {commit[:SHORT]}, {where}{moves}")
    notes = [note for stage in assembly.pipeline.stages for note in assembly.notes(stage)]
    return [*lines, *(f"note: {note}" for note in dict.fromkeys(notes))]


def _to_do(planned: _Planned, stage: PipelineStage) -> str:
    if planned.demand is None:
        return "pending"
    todo = len(planned.demand.tasks[stage.index])
    return f"{todo} of {todo + planned.demand.cached[stage.index]}" if todo else "nothing"


def _show_reasons(show: Any, pipeline: Pipeline, planned: _Planned) -> None:
    if planned.demand is None:
        absent = [source for source, model in planned.assembly.models.items() if model is None]
        states = [
            damage_in_cache(source, pipeline.components_of(source)) or f"{source.source} is not here yet"
            for source in absent
        ]
        why = ", ".join(states) or "the model is not hashed yet"
        next_ = "fetches and hashes first"
        if absent and is_offline():
            next_ = "cannot fetch it, for HF_HUB_OFFLINE is set"
        show(f"pending: {why}, so what is done already cannot be told; a run {next_}")
        return
    for stage in pipeline.stages:
        for task in planned.demand.tasks[stage.index][:SHOWN_TASKS]:
            show(f"{stage.name}: {task.item.id}: {task.reason}", highlight=False)
        more = len(planned.demand.tasks[stage.index]) - SHOWN_TASKS
        if more > 0:
            show(f"{stage.name}: and {more} more", highlight=False)
    if planned.demand.nothing:
        show("nothing to do: every output is there")
