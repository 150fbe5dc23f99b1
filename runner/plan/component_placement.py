"""A component with its placement and the resulting sizes, and how blocks are spread over the tiers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.placements import RESIDENT, SEQUENTIAL_OFFLOAD, STREAM, ComponentPlacement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.model.shapes import ComponentShapes
    from runner.plan.requirements import MemoryRequirements

SMALL = 0.1  # part of a stage's weights: a component up to it stays resident while others are offloaded
Blocks = dict[tuple[int, str], int]
"""Bytes of each block, by the number of its component and its name there."""


@dataclass(frozen=True)
class PlacedComponent:
    """A placed component, with the bytes of its weights."""

    shapes: ComponentShapes
    placement: ComponentPlacement
    loaded: int
    """Bytes of all of its weights in the dtype that they compute in."""
    resident: int
    """Bytes that stay on the device."""
    moved: int = 0
    """Bytes that are moved to the device each time that the component runs."""
    read: int = 0
    """The part of ``moved`` that is read from the disk."""
    streamed: tuple[str, ...] = ()
    """Blocks that are loaded into slots."""
    on_demand: bool = False
    """Whether weights outside of streamed blocks are loaded one by one."""


def whole(
    shapes: ComponentShapes, dtype: str, placement: ComponentPlacement, *, stays: bool
) -> PlacedComponent:
    """A component that stays on the device as a whole, or is moved there as a whole each time.

    Where its layers are moved one by one, what adapters add to them stays.
    """
    loaded = shapes.loaded_bytes(dtype)
    kept = shapes.adapter_bytes(dtype) if placement.placement == SEQUENTIAL_OFFLOAD else 0
    return PlacedComponent(
        shapes, placement, loaded, loaded if stays else kept, 0 if stays else loaded - kept
    )


def mapped(
    shapes: ComponentShapes, need: MemoryRequirements, name: str, device_map: Mapping[str, str]
) -> PlacedComponent:
    """A component placed by a device map; if all of it stays on the device, it is resident."""
    placement = ComponentPlacement(name, device_map)
    blocks = tuple(placement.streamed(shapes.blocks)) if name == STREAM else ()
    streamed = {weight for block in blocks for weight in shapes.blocks[block]}
    resident, waiting, read, one_by_one = shapes.adapter_bytes(need.dtype), 0, 0, 0
    for weight in shapes.tensors:
        tier = placement.tier(weight)
        loaded, stored = shapes.tensor_bytes(weight, need.dtype), shapes.stored_of(weight)
        if tier == "disk":
            read += stored
        elif tier == "cpu" and not need.on_cpu:
            # streamed weights wait and are copied in the stored dtype; others are cast first
            waiting += stored if weight in streamed else loaded
        else:
            resident += loaded
            continue
        one_by_one += weight not in streamed
    if not waiting + read:
        placement, blocks = ComponentPlacement(RESIDENT), ()
    total = shapes.loaded_bytes(need.dtype)
    return PlacedComponent(
        shapes, placement, total, resident, waiting + read, read, blocks, on_demand=one_by_one > 0
    )


def is_small(shapes: ComponentShapes, need: MemoryRequirements) -> bool:
    """Whether a component is so small beside the stage's others that it stays resident."""
    return shapes.loaded_bytes(need.dtype) <= SMALL * need.weights


def blocks_of(need: MemoryRequirements) -> Blocks:
    """The blocks of the stage's components, without small components.

    Sorted by number, since by name 10 would be before 2.
    """
    return {
        (n, block): size
        for n, shapes in enumerate(need.shapes)
        if not is_small(shapes, need)
        for block, size in sorted(shapes.block_bytes(need.dtype).items(), key=_by_number)
    }


def in_one_stretch(blocks: Blocks, room: int) -> list[tuple[int, str]]:
    """The first blocks, as many as fit into ``room`` bytes."""
    chosen = []
    for block, size in blocks.items():
        room -= size
        if room < 0:
            break
        chosen.append(block)
    return chosen


def evenly(blocks: Blocks, room: int) -> list[tuple[int, str]]:
    """As many blocks as fit into ``room`` bytes, evenly spread: while one of them runs, another is loaded."""
    names, count = list(blocks), len(blocks)
    for stay in range(count, 0, -1):
        chosen = [name for n, name in enumerate(names) if (n + 1) * stay // count > n * stay // count]
        if sum(blocks[name] for name in chosen) <= room:
            return chosen
    return []


def maps_of(
    need: MemoryRequirements, blocks: Blocks, stay: Sequence[tuple[int, str]], ram: int, *, as_stored: bool
) -> list[Mapping[str, str]]:
    """Each component's device map: blocks not in ``stay`` wait in up to ``ram`` bytes of RAM, else on disk.

    With ``as_stored``, a block in RAM has the size that it has in the files.
    """
    maps: list[dict[str, str]] = [{} for _ in need.shapes]
    staying = set(stay)
    for (n, block), size in blocks.items():
        if (n, block) in staying:
            continue
        shapes = need.shapes[n]
        takes = sum(map(shapes.stored_of, shapes.blocks[block])) if as_stored else size
        in_ram = takes <= ram
        ram -= takes if in_ram else 0
        maps[n][block] = "cpu" if in_ram else "disk"
    return list(maps)


def _by_number(block: tuple[str, int]) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", block[0])]
