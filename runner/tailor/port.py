"""A manifest rewritten for other hardware: the budgets that are given, and the mildest changes that fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.pipeline.binding import bind
from runner.tailor.changes import Change, apply, lowered, reread
from runner.tailor.fit import Fitted, fit, in_faster_dtypes, shapes_of, try_plan
from runner.tailor.hardware import Hardware, budget_changes
from runner.tailor.predictions import note_predictions
from runner.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.machine.describe import Machine
    from runner.manifest.load import Manifest
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan

_HARDWARE = re.compile(r"^# Hardware:.*$", re.MULTILINE)


@dataclass(frozen=True)
class Ported:
    """The new manifest, what changed, and the plans of each stage for the old hardware and the new."""

    manifest: Manifest
    input_files: set[str]
    """Names of the parameters that are files."""
    changes: tuple[Change, ...]
    before: tuple[StagePlan | None, ...]
    """None where the old device is not known, or does not have the placement."""
    after: tuple[StagePlan, ...]
    notes: tuple[str, ...]


def port(pipeline: Pipeline, hardware: Hardware, machine: Machine | None = None) -> Ported:
    """Rewrite a manifest for hardware that need not be this machine's.

    CPUs are assumed to be as fast as that of ``machine``, by default this one.

    Raises:
        BudgetError: it does not fit with any change; the message has the arithmetic.
        UsageError: it is not known whether there is a card.
        ModelError: a model is missing or damaged, or cannot be reached.
        PluginError: an activation formula fails.

    """
    shapes = shapes_of(pipeline)
    before = tuple(
        None if _is_unknown(stage) else try_plan(pipeline, stage.index, shapes[stage.index], machine)[0]
        for stage in pipeline.stages
    )
    budgets = budget_changes(pipeline.manifest, hardware)
    target = bind(apply(pipeline.manifest, budgets), pipeline.plugins)
    if any(_is_unknown(stage) for stage in target.stages):
        raise UsageError(
            "the device is auto, and it is not known whether there is a card: give --vram, or --device cpu"
        )
    # dtypes were chosen for the old device: stages that were on the CPU keep theirs
    moved = {
        stage.name
        for stage, old in zip(target.stages, before, strict=True)
        if old is None or not old.limits.on_cpu
    }
    fitted = in_faster_dtypes(fit(target, shapes, machine), shapes, pipeline.plugins, moved, machine)
    changes = (*budgets, *fitted.changes)
    text = note_predictions(fitted.manifest.text, fitted.plans, add=False)
    manifest = reread(fitted.manifest, text)
    notes = [f"{plan.stage.name}: {plan.faster}" for plan in fitted.plans if plan.faster]
    notes += [*_open_ended(fitted.plans), *_kept(pipeline, fitted, hardware), *_stale(manifest, changes)]
    if hardware.device == "cpu" and hardware.vram:
        notes.append(f"--vram {hardware.vram} is ignored: the device is the CPU")
    return Ported(manifest, pipeline.input_files, changes, before, fitted.plans, tuple(notes))


def _is_unknown(stage: PipelineStage) -> bool:
    """Whether the budget leaves open if there is a card."""
    return stage.budget.device == "auto" and stage.budget.vram is None


def _open_ended(plans: Sequence[StagePlan]) -> Iterator[str]:
    """Notes about sizes that are not known: those of this machine do not count."""
    for kind in ("vram", "ram"):
        limits = [
            (plan.limits.vram if kind == "vram" else plan.limits.ram, plan.limits.on_cpu) for plan in plans
        ]
        if any(limit is None and (kind == "ram" or not on_cpu) for limit, on_cpu in limits):
            yield f"no {kind} is given or in the manifest: planned without a limit (--{kind})"


def _kept(pipeline: Pipeline, fitted: Fitted, hardware: Hardware) -> Iterator[str]:
    """A note about settings for less memory that stay, though there is more now."""
    old = pipeline.manifest.table.budget
    sizes = ((hardware.vram, old.vram), (hardware.ram, old.ram))
    if not any(given and size and parse_size(given) > size for given, size in sizes):
        return
    lowered_now = {change.stage for change in fitted.changes}
    kept = []
    for stage in pipeline.stages:
        settings = [] if stage.name in lowered_now else lowered(stage)
        own = stage.table.budget
        settings += ["a budget of its own"] if own and (own.vram or own.ram) else []
        kept += [f"{stage.name} keeps {' and '.join(settings)}"] if settings else []
    if kept:
        yield f"there is more memory than before, and these settings stay: {'; '.join(kept)}"


def _stale(manifest: Manifest, changes: Sequence[Change]) -> Iterator[str]:
    """Notes about outputs with other keys, and about a comment that is no longer right."""
    numeric = list(dict.fromkeys(change.stage for change in changes if change.changes_outputs))
    if numeric:
        stages = " and ".join(numeric)
        yield f"outputs change from stage {stages} on: they get other keys, and existing outputs stay"
    header = _HARDWARE.search(manifest.text)
    if header and any(change.path[0] == "budget" for change in changes):
        yield f"a comment is out of date: '{header.group().strip('# ')}'"
