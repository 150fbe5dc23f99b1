"""A device map of one's own: which of a component's weights its names mean."""

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
    """What a map says of one component: tiers by the names of its files."""
    return {
        found[0]: _tier(device, on_cpu=on_cpu)
        for name, device in device_map.items()
        if (found := meant(name, shapes.tensors))
    }


def meant(name: str, weights: Iterable[str]) -> list[str]:
    """What a name means among names of weights: what they lie under, or else all that ends in it."""
    under = f"{plain(name)}."
    if not name or any(f"{plain(weight)}.".startswith(under) for weight in weights):
        return [name]
    inside = (f"{weight}.".partition(f".{name}.") for weight in weights)
    return list(dict.fromkeys(f"{before}.{name}" for before, found, _ in inside if found))


def check_map(pipeline: Pipeline, stage: PipelineStage, need: MemoryRequirements) -> None:
    """See that each name in a stage's own map is that of one thing.

    Raises:
        ManifestError: it is of nothing, or of several in one component.

    """
    manifest, problems = pipeline.manifest, Problems()
    components = [tuple(shapes.tensors) for shapes in need.shapes]
    parts = {part for weights in components for weight in weights for part in weight.split(".")}
    for name in (stage.table.device_map or {}) if parts else ():
        found = [meant(name, weights) for weights in components]
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
    """Every accelerator is the budget's own: a manifest may write it as 0, "cuda" or "cuda:0"."""
    if device == "disk" or (device == "cpu" and not on_cpu):
        return str(device)
    return "device"
