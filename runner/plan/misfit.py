"""The message that refuses a budget: what is missing, the arithmetic, and the changes that would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.plan.remedies import remedies
from runner.units import format_size

if TYPE_CHECKING:
    from runner.plan.stage_plan import StagePlan


def misfit_of(plan: StagePlan) -> str:
    """The message for a stage that does not fit: what is missing, and what would fit."""
    least, limits = plan.chosen, plan.limits
    lines = [f"stage '{plan.stage.name}' does not fit, as {least.placement} (which needs least):"]
    for peak in least.peaks(limits):
        if peak.lack:
            needs, may = format_size(peak.size), format_size(peak.limit or 0)
            lack = f"{format_size(peak.lack)} of {peak.kind}"
            lines.append(f"  {lack} are missing: it needs {needs}, and may take {may}")
            lines += [f"    {format_size(size):>11}  {part}" for part, size in peak.parts.items() if size]
    lines += [f"  {note}" for note in limits.notes]
    changes = list(remedies(plan))
    lines += [f"  would fit: {change}" for change in changes]
    if not changes:
        needs = " and ".join(f"{format_size(p.size)} of {p.kind}" for p in least.peaks(limits) if p.lack)
        has = " and ".join(f"{format_size(size)} of {kind}" for kind, size in limits.most.items())
        lines.append(
            f"  no change is known that would fit here: {needs} is the least, and this machine has {has}"
        )
    return "\n".join(lines)
