"""Values of ``--set`` that have no effect, or less than they seem to: other values take precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.params import names_of
from runner.manifest.sources import LORA_WEIGHTS, lora_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.manifest.batch_item import BatchItem
    from runner.manifest.load import Manifest
    from runner.manifest.overrides import Override
    from runner.pipeline.stage import PipelineStage


def without_effect(
    manifest: Manifest, stages: Sequence[PipelineStage], items: Sequence[BatchItem]
) -> Iterator[str]:
    """A line for each ``--set`` that has no effect, or none on some of the items or stages."""
    for n, override in enumerate(manifest.overrides):
        later = [other.text for other in manifest.overrides[n + 1 :] if other.path == override.path]
        if later:
            yield f"--set {override.text} changes nothing: --set {later[-1]} comes after it"
        elif reason := _reason(manifest, stages, items, override):
            yield f"--set {override.text} {reason}"


def _reason(
    manifest: Manifest, stages: Sequence[PipelineStage], items: Sequence[BatchItem], override: Override
) -> str:
    """Why an override has no effect, or not on all items or stages; empty if it has."""
    tables, tables_of_loras = manifest.table.stage, manifest.table.lora
    match override.path:
        case ("stage", int(n), "with", str(name), *_):
            maker = _maker(manifest, [stage for stage in stages if stage.index == n], name)
            return maker or _by_items(items, name)
        case ("with", str(name), *_):
            taking = [stage for stage in stages if stage.params and name in names_of(stage.params)]
            overruling = [stage for stage in taking if name in stage.table.with_]
            overruled = _overruled("stage", len(overruling), len(taking), f"'{name}'")
            return _maker(manifest, taking, name) or overruled or _by_items(items, name)
        case ("budget", str(name), *_):
            own = [table.budget for table in tables if table.budget and name in table.budget.model_fields_set]
            return _overruled("stage", len(own), len(tables), f"'{name}'")
        case ("model", *_):
            loading = [stage for stage in stages if stage.components]
            own_models = [stage for stage in loading if stage.table.model]
            return _overruled("stage", len(own_models), len(loading), "[stage.model]")
        case ("lora", int(n), "weight") if n < len(tables_of_loras):  # there is none where it is wrong
            lora = tables_of_loras[n]
            name = lora_name(lora.source, lora.name)
            given = [item.fields.get(LORA_WEIGHTS) for item in items]
            count = sum(isinstance(weights, dict) and name in weights for weights in given)
            return _overruled("item", count, len(items), f"a weight of '{name}'")
        case ("batch", "prompts" | "file", *_) | ("item", *_) if manifest.prompts:
            return "changes nothing: --prompt takes the place of the batch"
    return ""


def _maker(manifest: Manifest, stages: Sequence[PipelineStage], name: str) -> str:
    """The message where an earlier stage makes the parameter for each of these stages; else empty."""
    wires = [wire for stage in stages if (wire := stage.wires.get(name)) and not wire.optional]
    if not wires or len(wires) < len(stages):
        return ""
    return f"changes nothing: stage '{manifest.table.stage[wires[0].stage].name}' makes each item's '{name}'"


def _by_items(items: Sequence[BatchItem], name: str) -> str:
    return _overruled("item", sum(name in item.fields for item in items), len(items), f"'{name}'")


def _overruled(kind: str, own: int, count: int, what: str) -> str:
    """The message where some or all stages or items have their own value; empty if none has."""
    if own == 0:
        return ""
    if own == count:
        return f"changes nothing: every {kind} has {what} of its own"
    return f"changes {count - own} of {count} {kind}s: the others have {what} of their own"
