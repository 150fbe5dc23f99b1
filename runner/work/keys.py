"""Keys: hashes of everything that determines an item's result at a stage.

Not part of a key: budget, placement, batch, paths, the item's id, library versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.pipeline.binding import Pipeline, PipelineItem
    from runner.pipeline.stage import PipelineStage


@dataclass(frozen=True)
class Prints:
    """What a stage loads: its components' fingerprint, and the content hashes of its adapters by name."""

    model: str = ""
    loras: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Keyed:
    """An item's key at a stage, and the inputs that it is the hash of."""

    key: str
    key_inputs: Mapping[str, Any]


Keys = Mapping[str, tuple[Keyed, ...]]
"""Keys by item id, one per stage."""


def keys_of(pipeline: Pipeline, prints: Sequence[Prints] = ()) -> Keys:
    """The keys of all items; ``prints`` has what each stage loads, as far as that is known."""
    known = prints or [Prints()] * len(pipeline.stages)
    return {item.id: _item_keys(pipeline, item, known) for item in pipeline.items}


def key_of(key_inputs: Mapping[str, Any]) -> str:
    """The key of what is made from these: their hash."""
    text = json.dumps(key_inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _item_keys(pipeline: Pipeline, item: PipelineItem, prints: Sequence[Prints]) -> tuple[Keyed, ...]:
    keyed: list[Keyed] = []
    for stage in pipeline.stages:
        key_inputs = _key_inputs(stage, item, prints[stage.index].model, keyed)
        if loras := prints[stage.index].loras:
            key_inputs["lora"] = {
                name: {"place": n, "file": content, "weight": item.lora_weights[name]}
                for n, (name, content) in enumerate(loras.items())
            }
        if dtypes := pipeline.dtypes_elsewhere(stage):
            key_inputs["dtypes"] = dtypes
        if stage.table.quantize is not None:
            key_inputs["quantize"] = stage.table.quantize
        keyed.append(Keyed(key_of(key_inputs), key_inputs))
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
