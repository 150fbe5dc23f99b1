"""The plan's memory for people: a table a stage, with the reasons under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.units import format_size
from runner.plan.memory.display import tiers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from runner.plan.memory.choose import StagePlan
    from runner.plan.memory.placed import PlacedComponent

NUMBERS = slice(1, 7)  # columns that are flushed right


def show_memory(console: Console, plans: Sequence[StagePlan], todo: Sequence[str]) -> None:
    """For each stage: its components, its peaks against the limits, and a sentence for each choice."""
    for plan, to_do in zip(plans, todo, strict=True):
        table = plan.stage.table
        device = f"{plan.limits.device}, {table.dtype}"
        console.print(
            f"[bold]{plan.stage.name}[/] ({plan.stage.spec.name}, {device}): {to_do}", highlight=False
        )
        if plan.chosen.components:
            _show_components(console, plan)
        for line in (*_reasons(plan), *_peaks(plan)):
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        for note in plan.limits.notes:
            console.print(f"  note: {note}", highlight=False, markup=False)
        console.print()


def _show_components(console: Console, plan: StagePlan) -> None:
    from rich.table import Table

    names = ("component", "parameters", "stored", "stays", "moves", "from disk", "blocks")
    table = Table(*names, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns[NUMBERS]:
        column.justify = "right"
    for placed in plan.chosen.components:
        table.add_row(*_row(placed))
    from rich.padding import Padding

    console.print(Padding(table, (0, 0, 0, 2)))


def _row(placed: PlacedComponent) -> list[str]:
    shapes = placed.shapes
    sizes = (shapes.stored_bytes, placed.resident, placed.moved, placed.read)
    cells = [shapes.component.name, f"{shapes.parameters:,}", *(format_size(s) if s else "-" for s in sizes)]
    return [*cells, str(len(shapes.blocks))]


def _reasons(plan: StagePlan) -> list[str]:
    lines = []
    for placed in plan.chosen.components:
        name = placed.shapes.component.name
        lines.append(f"{name}: {placed.placing.placement}: {plan.reasons[name]}")
        if tiers := tiers_of(placed):
            lines.append(f"  {tiers}")
    return lines


def _peaks(plan: StagePlan) -> list[str]:
    """The predicted peaks, each with its limit and what it is made of."""
    lines = []
    for peak in plan.chosen.peaks(plan.limits):
        of = f" of {format_size(peak.limit)}" if peak.limit is not None else ""
        made_of = " + ".join(f"{format_size(size)} {part}" for part, size in peak.parts.items() if size)
        lines.append(f"{peak.kind} peak {format_size(peak.size)}{of}: {made_of}")
    if plan.need.item.leaves:
        lines.append(f"an item leaves up to {format_size(plan.need.item.leaves)} on the disk")
    if not plan.need.has_formula:
        lines.append(
            "(its plugin has no activation formula: what an item takes beside the weights is not in this)"
        )
    return lines
