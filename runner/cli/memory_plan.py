"""The memory and times of a plan, for people: a table per stage, with the reasons under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.tables import table
from runner.plan.as_json import tiers_of
from runner.plan.savings import notes_on_weights
from runner.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from runner.plan.component_placement import PlacedComponent
    from runner.plan.duration import Duration
    from runner.plan.stage_plan import StagePlan

COLUMNS = ("component", "parameters", "stored", "stays", "moves", "from disk", "blocks")


def show_memory(
    console: Console, plans: Sequence[StagePlan], todo: Sequence[str], durations: Sequence[Duration]
) -> None:
    """Print for each stage its components, the reasons for their placement, peaks, limits and times."""
    from rich.text import Text

    for plan, to_do, duration in zip(plans, todo, durations, strict=True):
        device = f"{plan.limits.device}, {plan.stage.table.dtype}"
        console.print(
            Text.assemble((plan.stage.name, "bold"), f" ({plan.stage.spec.name}, {device}): {to_do}")
        )
        if plan.chosen.components:
            _show_components(console, plan)
        for line in (*_reasons(plan), *_peaks(plan), *_times(plan, duration)):
            console.print(f"  {line}")
        for note in plan.limits.notes:
            console.print(f"  note: {note}")
        console.print()
    console.print(_in_all(plans, durations))


def _times(plan: StagePlan, duration: Duration) -> list[str]:
    lines = []
    if duration.seconds is None:
        lines.append(f"time: {duration.basis}")
    elif duration.seconds:
        lines.append(f"time: about {format_duration(duration.seconds)} ({duration.basis})")
    return [*lines, *([str(plan.faster)] if plan.faster else [])]


def _in_all(plans: Sequence[StagePlan], durations: Sequence[Duration]) -> str:
    """``in all: about 12 min 5 s``, with the names of stages whose time is not known."""
    known = sum(duration.seconds or 0.0 for duration in durations)
    unknown = [p.stage.name for p, d in zip(plans, durations, strict=True) if d.seconds is None]
    if not unknown:
        return f"in all: about {format_duration(known)}"
    return f"in all: about {format_duration(known)}, and {' and '.join(unknown)}, whose time is not known"


def _show_components(console: Console, plan: StagePlan) -> None:
    from rich.padding import Padding

    rows = map(_row, plan.chosen.components)
    console.print(Padding.indent(table(COLUMNS, rows, right=slice(1, None), narrow=True), 2))


def _row(placed: PlacedComponent) -> list[str]:
    shapes = placed.shapes
    sizes = (shapes.stored_bytes, placed.resident, placed.moved, placed.read)
    cells = [shapes.component.name, f"{shapes.parameters:,}", *(format_size(s) if s else "-" for s in sizes)]
    return [*cells, str(len(shapes.blocks))]


def _reasons(plan: StagePlan) -> list[str]:
    lines = []
    for placed in plan.chosen.components:
        name = placed.shapes.component.name
        lines.append(f"{name}: {placed.placement.placement}: {plan.reasons[name]}")
        if tiers := tiers_of(placed):
            lines.append(f"  {tiers}")
        lines += [f"  {note}" for note in notes_on_weights(placed, plan)]
        if added := placed.shapes.adapter_bytes(plan.need.dtype):
            count = len(placed.shapes.adapters)
            lines.append(f"  LoRA: {count} of them, not fused: {format_size(added)} beside the weights")
    return lines


def _peaks(plan: StagePlan) -> list[str]:
    """The predicted peaks, each with its limit and its parts."""
    lines = []
    for peak in plan.chosen.peaks(plan.limits):
        of = f" of {format_size(peak.limit)}" if peak.limit is not None else ""
        parts = " + ".join(f"{format_size(size)} {part}" for part, size in peak.parts.items() if size)
        lines.append(f"{peak.kind} peak {format_size(peak.size)}{of}: {parts}")
    if plan.need.item.output_bytes:
        lines.append(f"an item leaves up to {format_size(plan.need.item.output_bytes)} on the disk")
    if not plan.need.has_formula:
        why = "could not be measured" if plan.stage.spec.memory else "has no formula in its plugin"
        lines.append(f"(what an item takes beside the weights {why}: it is not in this)")
    return lines
