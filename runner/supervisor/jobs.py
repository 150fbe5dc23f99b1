"""From the plan's tasks to the job that a worker is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.api import File
from runner.machine.cpu import core_count
from runner.protocol import Input, Job, JobItem
from runner.work.demand import output_paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.model.sources import Model
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.candidates import PlacementOption
    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory
    from runner.work.demand import Task
    from runner.work.keys import Keyed


def make_job(
    pipeline: Pipeline,
    stage: PipelineStage,
    tasks: Sequence[Task],
    keys: Mapping[str, tuple[Keyed, ...]],
    model: Model | None,
    memory: StagePlan,
    placed: PlacementOption,
    group: int,
    directory: RunDirectory,
) -> Job:
    """The job of one stage for the items that need it, its weights placed as ``placed`` says."""
    table = stage.table
    return Job(
        name=stage.name,
        stage=stage.spec,
        distribution=pipeline.plugins.distribution_of(stage.spec.name),
        dtype=table.dtype,
        save_dtype=table.save_dtype,
        device=memory.limits.device,
        threads=stage.budget.threads or core_count(),
        vram=memory.allocatable,
        retains_freed_memory=placed.retains_freed_memory,
        placements=placed.placings,
        group=group,
        model=model.folder if model else None,
        variant=model.variant if model else None,
        retries=table.retries,
        timeout=table.timeout,
        checkpoint_every=pipeline.manifest.table.run.checkpoint_every,
        items=tuple(_job_item(pipeline, stage, task, keys, model, directory) for task in tasks),
    )


def _job_item(
    pipeline: Pipeline,
    stage: PipelineStage,
    task: Task,
    keys: Mapping[str, tuple[Keyed, ...]],
    model: Model | None,
    directory: RunDirectory,
) -> JobItem:
    key = task.keyed.key
    handoff = directory.handoff(stage.name, key) if stage.leaves_handoff else None
    return JobItem(
        id=task.item.id,
        key=key,
        params=task.item.params[stage.index].given,
        inputs=_inputs(pipeline, stage, keys[task.item.id], directory),
        handoff=handoff,
        state=directory.state(stage.name, key),
        files=output_paths(stage, directory, task.item.id, key),
        lineage=_lineage(stage, task, model),
    )


def _inputs(
    pipeline: Pipeline, stage: PipelineStage, keys: Sequence[Keyed], directory: RunDirectory
) -> dict[str, Input]:
    found = {}
    for name, source in stage.wires.items():
        earlier, key = pipeline.stages[source.stage], keys[source.stage].key
        path = directory.handoff(earlier.name, key)
        output = next(o for o in earlier.spec.outputs if o.name == source.output)
        file = None
        if isinstance(output, File):
            file = directory.handoff_file(earlier.name, key, output.name, output.suffix)
        found[name] = Input(path, key, source.output, file)
    return found


def _lineage(stage: PipelineStage, task: Task, model: Model | None) -> dict[str, Any]:
    """What the stage's output is made from, and all that it takes to make it again."""
    return {
        **task.keyed.key_inputs,
        "key": task.keyed.key,
        "place": stage.index,
        "as_written": task.item.params[stage.index].as_written,
        "source": model.record() if model else None,
    }
