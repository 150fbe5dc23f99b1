"""Why a component is placed as it is, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.units import format_size
from runner.plan.memory.placed import RESIDENT

if TYPE_CHECKING:
    from runner.plan.memory.candidates import Candidate
    from runner.plan.memory.limits import Limits
    from runner.plan.memory.pace import Pace
    from runner.plan.memory.placed import PlacedComponent
    from runner.plan.stage import PipelineStage


def reasons_for(
    stage: PipelineStage, limits: Limits, chosen: Candidate, known: list[Candidate], pace: Pace
) -> dict[str, str]:
    """One sentence for each component that has weights."""
    found = {}
    for placed in chosen.components:
        sentence = _what_it_means(placed, limits)
        if stage.table.placement != "auto":
            sentence = f"the manifest asks for {stage.table.placement}: {sentence}"
        elif chosen.placement == RESIDENT:
            sentence = f"all of the stage fits: {sentence}"
        elif placed.placing.placement == RESIDENT:
            sentence = f"small beside the others: {sentence}"
        else:
            sentence = f"{_why_not_faster(limits, chosen, known)}, so {sentence}"
        if placed.moved:
            sentence += _at_what_pace(pace, chosen.group)
        found[placed.shapes.component.name] = sentence
    return found


def _why_not_faster(limits: Limits, chosen: Candidate, known: list[Candidate]) -> str:
    """What the next faster placement lacks."""
    faster = known[: known.index(chosen)] if chosen in known else []
    if not faster:
        return "a device map is given"
    vram, ram = faster[0].lacks(limits)
    lacking = [f"{format_size(size)} of {kind}" for kind, size in (("VRAM", vram), ("RAM", ram)) if size]
    last = faster[-1]
    told = f"resident lacks {' and '.join(lacking)}"
    if last.placement != RESIDENT:
        vram, ram = last.lacks(limits)
        more = [f"{format_size(size)} of {kind}" for kind, size in (("VRAM", vram), ("RAM", ram)) if size]
        told += f" and {last.placement} {' and '.join(more)}"
    return told


def _what_it_means(placed: PlacedComponent, limits: Limits) -> str:
    place = "RAM" if limits.on_cpu else "VRAM"
    match placed.placing.placement:
        case "resident":
            return f"its {format_size(placed.loaded)} stay in {place}"
        case "model-offload":
            return f"its {format_size(placed.loaded)} come to VRAM while it runs, and leave for the next"
        case "group-offload" | "sequential-offload":
            return f"its {format_size(placed.moved)} cross the bus each pass, layer by layer"
    if not placed.moved:
        return f"its {format_size(placed.loaded)} stay in {place}"
    blocks = {tier: _count(placed, tier) for tier in ("cpu", "disk")}
    told = f"{format_size(placed.resident)} stay in {place}"
    waiting = placed.moved - placed.read
    if waiting:
        told += f", {blocks['cpu']} ({format_size(waiting)}) wait in RAM"
    if placed.read:
        told += f", {blocks['disk']} ({format_size(placed.read)}) are read from disk each pass"
    return told


def _at_what_pace(pace: Pace, group: int) -> str:
    items = f" for {group} items at a time" if group > 1 else ""
    transfer = max(pace.disk, pace.bus)
    if pace.compute is None:
        return f"{items} (about {transfer:.2g} s a pass)"
    compute = f"{pace.compute:.2g} s to compute: {pace.bound} bounds it"
    return f"{items} (about {transfer:.2g} s a pass, and {compute})"


def _count(placed: PlacedComponent, tier: str) -> str:
    count = sum(1 for found in placed.placing.device_map.values() if found == tier)
    return f"{count} block{'' if count == 1 else 's'}"
