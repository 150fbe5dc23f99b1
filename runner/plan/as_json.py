"""A stage's plan as JSON, and the tiers of its components in words."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runner.plan.savings import saving_of

if TYPE_CHECKING:
    from runner.plan.component_placement import PlacedComponent
    from runner.plan.stage_plan import StagePlan


def tiers_of(placed: PlacedComponent) -> str:
    """The parts of a component that are not on the device: ``disk: transformer_blocks 3-18``."""
    runs: dict[tuple[str, str], list[int]] = defaultdict(list)
    loose = []
    for name, tier in placed.placement.device_map.items():
        match = re.fullmatch(r"(.+)\.(\d+)", name)
        if match and tier != "device":
            runs[tier, match[1]].append(int(match[2]))
        elif tier != "device":
            loose.append(f"{tier}: {name or 'all'}")
    shown = [f"{tier}: {name} {_stretches(numbers)}" for (tier, name), numbers in runs.items()]
    return "; ".join([*shown, *loose])


def _stretches(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0-2, 5``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def as_dict(plan: StagePlan) -> dict[str, Any]:
    """A stage's plan for ``--json``; sizes in bytes."""
    return {
        "device": plan.limits.device,
        "placement": plan.chosen.placement,
        "predicted": plan.chosen.predicted,
        "limits": {"vram": plan.limits.vram, "ram": plan.limits.ram},
        "notes": list(plan.limits.notes),
        "fits": not plan.misfit,
        "misfit": plan.misfit or None,
        "activations": plan.need.activations if plan.need.has_formula else None,
        "parts": {"vram": dict(plan.chosen.vram_parts or {}), "ram": dict(plan.chosen.ram_parts)},
        "output_bytes": plan.need.item.output_bytes,
        "leaves": plan.need.item.output_bytes,  # its name in earlier versions
        "group": plan.chosen.group,
        "seconds_a_pass": {
            "disk": plan.pass_time.disk,
            "bus": plan.pass_time.bus,
            "compute": plan.pass_time.compute,
        },
        "bound": plan.pass_time.bound,
        "faster": plan.faster and {"dtype": "float32", "time": plan.faster.part, "ram": plan.faster.more},
        "lower": [candidate.placement for candidate in plan.lower],
        "components": [_component(placed, plan) for placed in plan.chosen.components],
    }


def _component(placed: PlacedComponent, plan: StagePlan) -> dict[str, Any]:
    shapes = placed.shapes
    saving = saving_of(placed, plan)
    return {
        "name": shapes.component.name,
        "parameters": shapes.parameters,
        "bytes": shapes.stored_bytes,
        "dtypes": shapes.dtypes,
        "blocks": len(shapes.blocks),
        "placement": placed.placement.placement,
        "device_map": dict(placed.placement.device_map),
        "loaded": placed.loaded,
        "resident": placed.resident,
        "adapters": shapes.adapter_bytes(plan.need.dtype),
        "moved": placed.moved,
        "read": placed.read,
        "reason": plan.reasons[shapes.component.name],
        "quantisation": str(shapes.quantisation) if shapes.quantisation else None,
        "saving": asdict(saving) if saving else None,
        "prepared": shapes.prepared or None,
    }
