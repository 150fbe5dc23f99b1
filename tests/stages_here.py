"""Runs a manifest's stages in this process, each by the worker's own loop, with its files in a run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from runner.cli.pipelines import open_pipeline
from runner.events import ItemFinished, Progress
from runner.placement.adapter_trial import try_adapter
from runner.plan.choose import plan_stage
from runner.supervisor.jobs import make_job
from runner.work.demand import demand
from runner.work.models import resolve_models
from runner.work.work import Work, run_directory
from runner.worker.loop import Loop
from runner.worker.prepare import prepare_component

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.events import Event
    from runner.protocol import Job


def run_stages(manifest: Path, stop: tuple[str, int] | None = None, sets: Sequence[str] = ()) -> list[Event]:
    """Make what is not made yet, beside the manifest; returns what the workers report.

    ``stop`` is a stage, and the step after which it is interrupted: its state is saved, and later stages are
    left out.
    """
    pipeline = open_pipeline(manifest, sets)
    models = resolve_models(pipeline)
    for check in models.adapters.checks.values():
        if check.report is None:  # as the supervisor has another process do
            check.keep(try_adapter(check))
    work = Work(pipeline, models.keys() or {}, run_directory(pipeline, manifest.parent / "runs"))
    events: list[Event] = []
    for stage in pipeline.stages:
        model = models.placed(stage)
        for one in model.prepared.values() if model else ():
            prepare_component(one, events.append, {})
        plan = plan_stage(pipeline, stage, models.shapes(stage))
        plan.check()
        tasks = demand(work, ()).tasks[stage.index]
        job = make_job(work, plan, plan.chosen, tasks, model)
        is_last = stop is not None and stop[0] == stage.name
        _run(job, events, stop[1] if stop is not None and is_last else None)
        failed = [event.error for event in events if isinstance(event, ItemFinished) and event.error]
        assert not failed, failed
        if is_last:
            break
    return events


def _run(job: Job, events: list[Event], step: int | None) -> None:
    def report(event: Event) -> None:
        events.append(event)
        if step is not None and isinstance(event, Progress) and event.step >= step:
            loop.stop()

    loop = Loop(job, report)
    loop.run()


def made(manifest: Path) -> dict[str, list[torch.Tensor]]:
    """The tensors of each item's output, by the item's id."""
    outputs = sorted((manifest.parent / "runs/made/outputs").glob("*.safetensors"))
    return {path.name.rpartition("-")[0]: list(load_file(path).values()) for path in outputs}


def equal(made: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))
