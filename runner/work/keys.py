"""Keys: hashes of all that an item's output at a stage is made from, and of nothing else.

Not in a key: budget, placement, batch, paths, the item's id, library versions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.pipeline.binding import Pipeline, PipelineItem
    from runner.pipeline.stage import PipelineStage


@dataclass(frozen=True)
class Keyed:
    """An item's key at a stage, and the ingredients that it is the hash of."""

    key: str
    key_inputs: Mapping[str, Any]


def keys_of(pipeline: Pipeline, fingerprints: Sequence[str]) -> dict[str, tuple[Keyed, ...]]:
    """Keys by item id, one a stage; ``fingerprints`` are those of each stage's components."""
    return {item.id: _item_keys(pipeline, item, fingerprints) for item in pipeline.items}


def _item_keys(pipeline: Pipeline, item: PipelineItem, fingerprints: Sequence[str]) -> tuple[Keyed, ...]:
    keyed: list[Keyed] = []
    for stage in pipeline.stages:
        key_inputs = _key_inputs(stage, item, fingerprints[stage.index], keyed)
        text = json.dumps(key_inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        keyed.append(Keyed(digest, key_inputs))
    return tuple(keyed)


def _key_inputs(
    stage: PipelineStage, item: PipelineItem, fingerprint: str, earlier: Sequence[Keyed]
) -> dict[str, Any]:
    return {
        "stage": stage.spec.name,
        "version": stage.spec.version,
        "params": item.params[stage.index].canonical,
        "model": fingerprint,
        "dtype": stage.table.dtype,
        "save_dtype": stage.table.save_dtype,
        "inputs": {
            name: f"{earlier[source.stage].key}.{source.output}"
            for name, source in sorted(stage.wires.items())
        },
    }
