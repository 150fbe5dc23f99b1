"""Runs a manifest's stages in this process, each by the worker's own loop, as planned for a device."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.events import Event


class Ran(NamedTuple):
    """What came of a run: outputs' pixels, what each stage was predicted to take and took, what was wrong."""

    pixels: dict[str, str]
    """A digest for each item's picture."""
    predicted: list[int | None]
    reserved: list[int | None]
    """Peaks of the device's memory in bytes, of each stage."""
    placements: list[str]
    errors: list[str]
    violations: list[str]
    touched: list[bool]
    """For each device, whether it was used."""


def run_each(manifest: str, runs: str, sets: Mapping[str, Sequence[str]], policy: str) -> dict[str, Ran]:
    """Run a manifest with one list of overrides after another, each in a run directory of that name."""
    import torch_sim

    torch_sim.set_policy(policy, 5)
    return {name: run(manifest, f"{runs}/{name}", overrides) for name, overrides in sets.items()}


def run(manifest: str, runs: str, sets: Sequence[str]) -> Ran:
    """Run all stages of a manifest; ``sets`` are overrides as ``--set`` takes them."""
    import torch
    import torch_sim

    from runner.cli.pipelines import open_pipeline
    from runner.events import Finished, ItemFinished
    from runner.placement.adapter_trial import try_adapter
    from runner.plan.choose import plan_stage
    from runner.supervisor.jobs import make_job
    from runner.work.demand import demand
    from runner.work.models import resolve_models
    from runner.work.work import Work, run_directory
    from runner.worker.loop import Loop

    pipeline = open_pipeline(Path(manifest), sets)
    models = resolve_models(pipeline)
    for check in models.adapters.checks.values():
        check.keep(try_adapter(check))
    work = Work(pipeline, models.keys() or {}, run_directory(pipeline, Path(runs)))
    predicted: list[int | None] = []
    events: list[Event] = []
    placements: list[str] = []
    for stage in pipeline.stages:
        plan = plan_stage(pipeline, stage, models.shapes(stage))
        plan.check()
        tasks = demand(work, ()).tasks[stage.index]
        gc.collect()  # each stage as in a worker of its own
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats()
        predicted.append(plan.chosen.vram)
        placements.append(plan.chosen.placement)
        Loop(make_job(work, plan, plan.chosen, tasks, models.placed(stage)), events.append).run()
    if torch.sim.is_initialized():  # type: ignore[attr-defined]
        torch.accelerator.synchronize()
    return Ran(
        pixels={path.name.rpartition("-")[0]: _pixels(path) for path in work.directory.outputs.glob("*.png")},
        predicted=predicted,
        reserved=[event.vram_reserved for event in events if isinstance(event, Finished)],
        placements=placements,
        errors=[event.error for event in events if isinstance(event, ItemFinished) and event.error],
        violations=torch_sim.take_violations(),
        touched=[torch_sim.is_touched(n) for n in range(2)],
    )


def _pixels(path: Path) -> str:
    with Image.open(path) as picture:
        return hashlib.sha256(picture.tobytes()).hexdigest()
