"""Makes the job that a worker is sent from a stage's plan and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.machine.cpu import core_count
from runner.model.layouts import Layout
from runner.protocol import Input, Job, JobAdapters, JobItem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.model.sources import ComposedModel
    from runner.pipeline.stage import PipelineStage
    from runner.plan.placement_option import PlacementOption
    from runner.plan.stage_plan import StagePlan
    from runner.work.demand import Task
    from runner.work.work import Work


def make_job(
    work: Work,
    plan: StagePlan,
    placed: PlacementOption,
    tasks: Sequence[Task],
    model: ComposedModel | None,
    source: Mapping[str, Any] | None = None,
) -> Job:
    """The job of a stage for these tasks, its weights placed by ``placed``: an option of its plan.

    ``source`` is recorded as where the model is from, by default the model's own record.
    """
    stage = plan.stage
    table = stage.table
    layouts = {shapes.component.name: Layout.of(shapes) for shapes in plan.need.shapes}
    return Job(
        name=stage.name,
        stage=stage.spec,
        distribution=work.pipeline.plugins.distribution_of(stage.spec.name),
        dtype=table.dtype,
        save_dtype=table.save_dtype,
        device=plan.limits.device,
        threads=stage.budget.threads or core_count(),
        vram=plan.allocatable,
        # only the budget is enforced: the RAM that the machine has to spare limits the plan, and changes
        ram=stage.budget.ram,
        retains_freed_memory=placed.retains_freed_memory,
        placements=placed.placements,
        group=placed.group,
        components={c.name: model.place(c, layouts.get(c.name)) for c in stage.components} if model else {},
        facts=stage.facts,
        dtypes=work.pipeline.dtypes_elsewhere(stage),
        retries=table.retries,
        timeout=table.timeout,
        checkpoint_every=work.pipeline.manifest.table.run.checkpoint_every,
        items=job_items(work, stage, tasks, model, source),
        adapters=JobAdapters(model.lora_files(), model.recipients) if model and model.recipients else None,
    )


def job_items(
    work: Work,
    stage: PipelineStage,
    tasks: Sequence[Task],
    model: ComposedModel | None,
    source: Mapping[str, Any] | None = None,
) -> tuple[JobItem, ...]:
    """The items of a job for these tasks of a stage; ``source`` as for :func:`make_job`."""
    if source is None and model is not None:
        source = model.record()
    return tuple(_job_item(work, stage, task, source) for task in tasks)


def _job_item(work: Work, stage: PipelineStage, task: Task, source: Mapping[str, Any] | None) -> JobItem:
    key, directory = task.keyed.key, work.directory
    handoff = directory.handoff(stage.name, key) if stage.leaves_handoff else None
    return JobItem(
        id=task.item.id,
        key=key,
        params=task.item.params[stage.index].raw,
        inputs=_inputs(work, stage, task.item.id),
        handoff=handoff,
        state=directory.state(stage.name, key),
        files=work.files(task.item.id, stage),
        lineage=_lineage(stage, task, source),
        lora_weights=tuple(one["weight"] for one in task.keyed.key_inputs.get("lora", {}).values()),
    )


def _inputs(work: Work, stage: PipelineStage, item: str) -> dict[str, Input]:
    found = {}
    for name, source in stage.wires.items():
        earlier = work.pipeline.stages[source.stage]
        key = work.key(item, earlier)
        file = work.files(item, earlier).get(source.output)
        found[name] = Input(work.directory.handoff(earlier.name, key), key, source.output, file)
    return found


def _lineage(stage: PipelineStage, task: Task, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The stage's entry in the lineage: the key's inputs, and what is needed to make the output again."""
    return {
        **task.keyed.key_inputs,
        "key": task.keyed.key,
        "place": stage.index,
        "as_written": task.item.params[stage.index].as_written,
        "source": source,
    }
