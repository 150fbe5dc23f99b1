"""The placements by their names in manifests, and how one component's weights are placed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

RESIDENT, STREAM, DEVICE_MAP = "resident", "stream", "device-map"
MODEL_OFFLOAD, GROUP_OFFLOAD, SEQUENTIAL_OFFLOAD = "model-offload", "group-offload", "sequential-offload"
ACCELERATOR_ONLY = (MODEL_OFFLOAD, GROUP_OFFLOAD, SEQUENTIAL_OFFLOAD)

DEVICE, RAM, DISK = "device", "cpu", "disk"
"""Tiers: where a weight is between the operations that use it."""


STREAM_CHUNK, STREAM_READERS = 16 << 20, 2
"""Bytes of one read of streamed weights, and threads that read at a time; each has a buffer of a chunk."""


@dataclass(frozen=True)
class ComponentPlacement:
    """How one component's weights are placed.

    ``device_map`` assigns a tier, ``"cpu"`` or ``"disk"``, to names of blocks, modules or single weights, as
    in the files or in the modules. All other weights stay on the device. ``""`` is the whole component.
    """

    placement: str
    device_map: Mapping[str, str] = field(default_factory=dict)

    def with_module_names(self, names: Collection[str]) -> ComponentPlacement:
        """The same placement, its map spelled in a model's own names of modules and weights.

        Names in files may have one part more or less at the front: they were saved from a wrapping model.
        """
        return replace(self, device_map={own_name(n, names): tier for n, tier in self.device_map.items()})

    def tier(self, weight: str) -> str:
        """The tier of a weight or module: that of the longest name in the map which contains it."""
        name = plain(weight)
        while name not in self._tiers:
            if not name:
                return DEVICE
            name = name.rpartition(".")[0]
        return self._tiers[name]

    @cached_property
    def _tiers(self) -> dict[str, str]:
        """The map with plain names; of two that are the same, the longer counts."""
        return {plain(name): self.device_map[name] for name in sorted(self.device_map, key=len)}

    def is_offloaded(self, weight: str) -> bool:
        """Whether a weight or module is away from the device between its uses."""
        return self.tier(weight) != DEVICE

    def in_ram(self, weight: str) -> bool:
        """Whether an offloaded weight or module stays in RAM, not on disk."""
        return self.tier(weight) == RAM

    def streamed(self, blocks: Mapping[str, Iterable[str]]) -> list[str]:
        """The names of those ``blocks`` (weights by block) that are streamed as a whole.

        Their weights are all on one tier, not the device. Other offloaded weights are loaded one by one.
        """
        tiers = {block: {self.tier(weight) for weight in weights} for block, weights in blocks.items()}
        return [block for block, found in tiers.items() if len(found) == 1 and DEVICE not in found]


def own_name(name: str, names: Collection[str]) -> str:
    """The one of a model's own ``names`` that a name from a file refers to; ``name`` itself if none does."""
    shorter = name
    while shorter and shorter not in names:
        shorter = shorter.partition(".")[2]
    longer = [own for own in names if own.endswith(f".{name}")]
    return shorter or (longer[0] if len(longer) == 1 else name)


def plain(name: str) -> str:
    """A name without the prefix that CLIP's files have and some versions of transformers leave out."""
    return unwrapped(name.removeprefix("text_model."))


def unwrapped(name: str) -> str:
    """A name without the part by which peft names a layer inside the one that it wraps around it."""
    return name.replace(".base_layer", "")
