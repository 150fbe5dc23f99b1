"""The manifest's device map: which of a component's weights its names match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.problems import Problems, did_you_mean
from runner.placements import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.requirements import MemoryRequirements


def in_file_names(
    device_map: Mapping[str, str | int], shapes: ComponentShapes, *, on_cpu: bool
) -> dict[str, str]:
    """The part of a device map that concerns one component: tiers by the names in its files."""
    return {
        found[0]: _tier(device, on_cpu=on_cpu)
        for name, device in device_map.items()
        if (found := matches(name, shapes.tensors))
    }


def matches(name: str, weights: Iterable[str]) -> list[str]:
    """The name itself if weights lie under it, else all longer names of modules or weights that end in it."""
    under = f"{plain(name)}."
    if not name or any(f"{plain(weight)}.".startswith(under) for weight in weights):
        return [name]
    inside = (f"{weight}.".partition(f".{name}.") for weight in weights)
    return list(dict.fromkeys(f"{before}.{name}" for before, found, _ in inside if found))


def check_map(pipeline: Pipeline, stage: PipelineStage, need: MemoryRequirements) -> None:
    """Check that each name in a stage's device map matches weights, and at most once in each component.

    Raises:
        ManifestError: a name matches nothing, or several modules of one component.

    """
    manifest, problems = pipeline.manifest, Problems()
    components = [tuple(shapes.tensors) for shapes in need.shapes]
    parts = {part for weights in components for weight in weights for part in weight.split(".")}
    for name in (stage.table.device_map or {}) if parts else ():
        found = [matches(name, weights) for weights in components]
        where = manifest.where("stage", stage.index, "device_map", name, key=True)
        several = next((names for names in found if len(names) > 1), None)
        if several:
            problems.add(where, f"'{name}' may be {_listed(several)}: write the whole name")
        elif not any(found):
            hint = did_you_mean(name, parts)
            problems.add(where, f"no weight of {stage.spec.name} lies under '{name}'{hint}")
    problems.check()


def _listed(names: list[str]) -> str:
    more = f" or one of {len(names) - 2} more" if len(names) > 2 else ""
    return " or ".join(f"'{name}'" for name in names[:2]) + more


def _tier(device: str | int, *, on_cpu: bool) -> str:
    """The tier of a map's value; every accelerator means the device of the budget."""
    if device == "disk" or (device == "cpu" and not on_cpu):
        return str(device)
    return "device"
