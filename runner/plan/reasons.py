"""The reason for each component's placement, in one sentence."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from runner.placements import GROUP_OFFLOAD, MODEL_OFFLOAD, RESIDENT, SEQUENTIAL_OFFLOAD
from runner.units import format_duration, format_size

if TYPE_CHECKING:
    from runner.pipeline.stage import PipelineStage
    from runner.plan.component_placement import PlacedComponent
    from runner.plan.limits import Limits
    from runner.plan.placement_option import PlacementOption
    from runner.plan.throughput import PassTime


def reasons_for(
    stage: PipelineStage,
    limits: Limits,
    chosen: PlacementOption,
    known: list[PlacementOption],
    pass_time: PassTime,
) -> dict[str, str]:
    """A sentence for each component with weights, by its name."""
    found = {}
    for placed in chosen.components:
        sentence = _sentence(placed, limits)
        if stage.table.placement != "auto":
            sentence = f"the manifest asks for {stage.table.placement}: {sentence}"
        elif chosen.placement == RESIDENT:
            sentence = f"all of the stage fits: {sentence}"
        elif placed.placement.placement == RESIDENT:
            sentence = f"small beside the others: {sentence}"
        else:
            sentence = f"{_why_not_faster(limits, chosen, known)}, so {sentence}"
        if placed.moved:
            sentence += _pass_time(pass_time, chosen.group)
        found[placed.shapes.component.name] = sentence
    return found


def _why_not_faster(limits: Limits, chosen: PlacementOption, known: list[PlacementOption]) -> str:
    """The memory that faster placements lack."""
    faster = list(takewhile(lambda other: other.placement != chosen.placement, known))
    if not faster:
        return "a device map is given"
    reason = f"{RESIDENT} lacks {_lacking(faster[0], limits)}"
    last = faster[-1]
    if last.placement != RESIDENT:
        reason += f" and {last.placement} {_lacking(last, limits)}"
    return reason


def _lacking(candidate: PlacementOption, limits: Limits) -> str:
    """As ``3.20 GiB of VRAM and 1.00 GiB of RAM``."""
    peaks = candidate.peaks(limits)
    return " and ".join(f"{format_size(peak.lack)} of {peak.kind}" for peak in peaks if peak.lack)


def _sentence(placed: PlacedComponent, limits: Limits) -> str:
    place = "RAM" if limits.on_cpu else "VRAM"
    placement = placed.placement.placement
    if placement == RESIDENT:
        return f"its {format_size(placed.loaded)} stay in {place}"
    if placement == MODEL_OFFLOAD:
        return f"its {format_size(placed.loaded)} come to VRAM while it runs, and leave for the next"
    if placement in (GROUP_OFFLOAD, SEQUENTIAL_OFFLOAD):
        return f"its {format_size(placed.moved)} cross the bus each pass, layer by layer"
    blocks = {tier: _count(placed, tier) for tier in ("cpu", "disk")}
    sentence = f"{format_size(placed.resident)} stay in {place}"
    waiting = placed.moved - placed.read
    if waiting:
        sentence += f", {blocks['cpu']} ({format_size(waiting)}) wait in RAM"
    if placed.read:
        sentence += f", {blocks['disk']} ({format_size(placed.read)}) are read from disk each pass"
    return sentence


def _pass_time(pass_time: PassTime, group: int) -> str:
    items = f" for {group} items at a time" if group > 1 else ""
    transfer = max(pass_time.disk, pass_time.bus)
    if pass_time.compute is None:
        return f"{items} (about {_rough(transfer)} a pass)"
    compute = f"{_rough(pass_time.compute)} to compute: {pass_time.bound} bounds it"
    return f"{items} (about {_rough(transfer)} a pass, and {compute})"


def _rough(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else format_duration(seconds)


def _count(placed: PlacedComponent, tier: str) -> str:
    count = sum(1 for found in placed.placement.device_map.values() if found == tier)
    return f"{count} block{'' if count == 1 else 's'}"
