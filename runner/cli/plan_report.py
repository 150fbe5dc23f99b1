"""The report of ``runner plan`` and ``runner run --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.display.lines import item_count
from runner.cli.measuring import MeasuringMessages
from runner.cli.memory_plan import show_memory
from runner.cli.output import console, print_json, say
from runner.cli.pipelines import check_stages, open_pipeline
from runner.errors import ExitCode, RunnerError
from runner.manifest.schema import LoraSource, PartSource
from runner.model.hub.errors import is_offline, title
from runner.model.hub.snapshots import damage_in_cache
from runner.plan.as_json import as_dict
from runner.plan.choose import plan_stages
from runner.plan.duration import Duration, duration_of, in_all
from runner.supervisor.requests.measuring import measuring
from runner.work.demand import Demand, Task, demand, forced_stages
from runner.work.models import ResolvedModels, resolve_models
from runner.work.resume import SavedStep, saved_step
from runner.work.work import Work, run_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.machine.describe import Machine
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory

SHOWN_TASKS = 5
SHOWN_STATES = 20
COMMIT_WIDTH = 12  # characters


@dataclass(frozen=True)
class PlanRequest:
    """What the command line says about a plan besides its manifest."""

    sets: Sequence[str] = ()
    prompts: Sequence[str] = ()
    fresh: str | None = None
    runs_dir: Path = Path("runs")
    as_json: bool = False
    machine: Machine | None = None
    """The machine to plan for; this one if None."""
    executor: str | None = None
    """In place of the manifest's."""


@dataclass(frozen=True)
class _Planned:
    resolved: ResolvedModels
    stages: list[StagePlan]
    demand: Demand | None
    """None where keys are pending: a model is not here, or not hashed yet, and a plan never hashes."""
    directory: RunDirectory
    durations: list[Duration]
    """Of each stage, for what there is to do; where that is pending, for all items."""

    def saved(self, stage: PipelineStage, task: Task) -> SavedStep | None:
        """The step that an interrupted attempt at the task would continue from."""
        key = task.keyed.key
        return saved_step(self.directory.state(stage.name, key), key)


def show_plan(manifest: Path, request: PlanRequest) -> int:
    """Show what a run would do, and its memory and time; returns the exit code.

    Writes nothing in the project and hashes nothing. Of a hub model that is not here, headers and configs are
    downloaded: kilobytes.
    """
    pipeline = open_pipeline(manifest, request.sets, request.prompts, request.executor)
    if pipeline.executor is not None:
        name = pipeline.executor.spec.name
        say(f"note: this is the plan for this machine; where '{name}' runs stages, each place has its own")
    planned = _plan(pipeline, request)
    if request.as_json:
        print_json(_as_json(pipeline, planned))
    else:
        _show(pipeline, planned)
    misfits = [stage.misfit for stage in planned.stages if stage.misfit]
    for misfit in misfits:
        say(f"error: {misfit}")
    if unreachable := _unreachable(planned.resolved):
        say(f"error: {unreachable}")
        return ExitCode.MODEL
    return ExitCode.BUDGET if misfits else ExitCode.DONE


def _plan(pipeline: Pipeline, request: PlanRequest) -> _Planned:
    resolved = resolve_models(pipeline)
    forced = forced_stages(pipeline, request.fresh)
    check_stages(resolved, pipeline.stages)
    keys = resolved.keys(hash_missing=False)
    directory = run_directory(pipeline, request.runs_dir)
    found = demand(Work(pipeline, keys, directory), forced) if keys is not None else None
    with measuring(MeasuringMessages()):
        stages = plan_stages(pipeline, pipeline.stages, resolved.shapes, request.machine)
    return _Planned(resolved, stages, found, directory, [_duration(stage, found) for stage in stages])


def _unreachable(resolved: ResolvedModels) -> str:
    """Why a run could not download a model that is not here; "" if it could."""
    try:
        resolved.refuse_unreachable()
    except RunnerError as error:
        return str(error)
    return ""


def _duration(plan: StagePlan, found: Demand | None) -> Duration:
    if found is None:
        whole = duration_of(plan, list(plan.need.each))
        return replace(whole, basis=f"for all items; {whole.basis}")
    return duration_of(plan, [task.item.id for task in found.tasks[plan.stage.index]])


def _as_json(pipeline: Pipeline, planned: _Planned) -> dict[str, Any]:
    return {
        "name": pipeline.manifest.table.name,
        "items": len(pipeline.items),
        "models": _models(planned.resolved),
        "loras": _loras(planned.resolved),
        "seconds": in_all(planned.durations),
        "stages": [_stage_as_json(planned, stage) for stage in pipeline.stages],
    }


def _stage_as_json(planned: _Planned, stage: PipelineStage) -> dict[str, Any]:
    found, duration = planned.demand, planned.durations[stage.index]
    return {
        "stage": stage.name,
        "uses": stage.spec.name,
        "dtype": stage.table.dtype,
        "save_dtype": stage.table.save_dtype,
        "budget": stage.budget.model_dump(),
        **as_dict(planned.stages[stage.index]),
        "seconds": duration.seconds,
        "seconds_from": duration.basis,
        "todo": [_task_as_json(planned, stage, t) for t in found.tasks[stage.index]] if found else "pending",
        "todo_items": found.items(stage.index) if found else "pending",
        "cached": found.cached[stage.index] if found else "pending",
    }


def _models(resolved: ResolvedModels) -> list[dict[str, Any]]:
    """The source of each model and part from elsewhere, and the commit of one on the hub."""
    commits = resolved.commits()
    return [
        {
            "source": source.source,
            "revision": source.revision,
            "variant": source.variant,
            "component": source.component if isinstance(source, PartSource) else None,
            "file": source.file if isinstance(source, LoraSource) else None,
            "commit": commits.get(source),
            "here": model is not None,
        }
        for source, model in resolved.models.items()
    ]


def _loras(resolved: ResolvedModels) -> list[dict[str, Any]]:
    """The adapters, and the components that each changes."""
    return [
        {
            "name": lora.name,
            "weight": lora.weight,
            "changes": list(check.report.layers) if check.report else [],
        }
        for lora, check in resolved.adapters.checks.items()
    ]


def _task_as_json(planned: _Planned, stage: PipelineStage, task: Task) -> dict[str, Any]:
    saved = planned.saved(stage, task)
    return {
        "item": task.item.id,
        "items": task.items,
        "key": task.keyed.key,
        "reason": task.reason,
        "saved": saved._asdict() if saved else None,
    }


def _show(pipeline: Pipeline, planned: _Planned) -> None:
    shown = console()
    todo = [_to_do(planned, stage) for stage in pipeline.stages]
    show_memory(shown, planned.stages, todo, planned.durations)
    for line in _model_lines(planned.resolved):
        shown.print(line)
    _show_reasons(shown.print, pipeline, planned)


def _model_lines(resolved: ResolvedModels) -> list[str]:
    """The commit of each model on the hub, and notes about models."""
    lines = []
    for source, commit in resolved.commits().items():
        where = "in the hub's cache" if resolved.models[source] else "the latest on the hub at the last check"
        if commit:
            moves = "" if commit == source.revision else "; `runner fetch --refresh` asks where it stands now"
            lines.append(f"{title(source)}: commit {commit[:COMMIT_WIDTH]}, {where}{moves}")
    lines += [
        f"LoRA '{lora['name']}': weight {lora['weight']:g}, changes {', '.join(lora['changes'])}"
        for lora in _loras(resolved)
    ]
    notes = [note for stage in resolved.pipeline.stages for note in resolved.notes(stage)]
    return [*lines, *(f"note: {note}" for note in dict.fromkeys(notes))]


def _to_do(planned: _Planned, stage: PipelineStage) -> str:
    if planned.demand is None:
        return "pending"
    todo, distinct = planned.demand.items(stage.index), len(planned.demand.tasks[stage.index])
    if not todo:
        return "nothing"
    of = item_count(todo + planned.demand.cached[stage.index], None)
    return f"{todo} of {of}" + (f" ({distinct} distinct)" if distinct != todo else "")


def _show_reasons(show: Callable[[str], None], pipeline: Pipeline, planned: _Planned) -> None:
    if planned.demand is None:
        absent = [source for source, model in planned.resolved.models.items() if model is None]
        states = [
            damage_in_cache(source, pipeline.components_of(source)) or f"{title(source)} is not here yet"
            for source in absent
        ]
        why = ", ".join(states) or "the model is not hashed yet"
        next_ = "fetches and hashes first"
        if absent and is_offline():
            next_ = "cannot fetch it: HF_HUB_OFFLINE is set"
        show(f"pending: {why}, so it is not known what is done already; a run {next_}")
        return
    for stage in pipeline.stages:
        tasks = planned.demand.tasks[stage.index]
        for task in tasks[:SHOWN_TASKS]:
            duplicates = f" (and for {', '.join(task.duplicate_items)})" if task.duplicate_items else ""
            show(f"{stage.name}: {task.item.id}{duplicates}: {task.reason}")
        if more := sum(len(task.items) for task in tasks[SHOWN_TASKS:]):
            show(f"{stage.name}: and {more} more")
        _show_saved(show, planned, stage)
    if planned.demand.nothing:
        show("nothing to do: every output is there")


def _show_saved(show: Callable[[str], None], planned: _Planned, stage: PipelineStage) -> None:
    """Show the items that continue from a step that an interrupted run saved."""
    tasks = planned.demand.tasks[stage.index] if planned.demand else []
    saved = [(task, found) for task in tasks if (found := planned.saved(stage, task)) is not None]
    for task, (step, steps) in saved[:SHOWN_STATES]:
        show(f"{stage.name}: {task.item.id} goes on from step {step} of {steps}")
    if len(saved) > SHOWN_STATES:
        show(f"{stage.name}: and {len(saved) - SHOWN_STATES} more go on from a saved step")
