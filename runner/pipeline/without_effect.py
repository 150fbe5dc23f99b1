"""Values of ``--set`` that have no effect, or less than they seem to: other values take precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    tables = manifest.table.stage
    match override.path:
        case ("stage", int(n), "with", str(name), *_):
            stage = next((stage for stage in stages if stage.index == n), None)
            wire = stage.wires.get(name) if stage else None
            if wire is not None and not wire.optional:
                return f"changes nothing: stage '{tables[wire.stage].name}' makes each item's '{name}'"
            return _overruled("item", sum(name in item.fields for item in items), len(items), f"'{name}'")
        case ("budget", str(name), *_):
            own = [table.budget for table in tables if table.budget and name in table.budget.model_fields_set]
            return _overruled("stage", len(own), len(tables), f"'{name}'")
        case ("model", *_):
            loading = [stage for stage in stages if stage.components]
            own_models = [stage for stage in loading if stage.table.model]
            return _overruled("stage", len(own_models), len(loading), "[stage.model]")
        case ("batch", "prompts" | "file", *_) | ("item", *_) if manifest.prompts:
            return "changes nothing: --prompt takes the place of the batch"
    return ""


def _overruled(kind: str, own: int, count: int, what: str) -> str:
    """The message where some or all stages or items have their own value; empty if none has."""
    if own == 0:
        return ""
    if own == count:
        return f"changes nothing: every {kind} has {what} of its own"
    return f"changes {count - own} of {count} {kind}s: the others have {what} of their own"
