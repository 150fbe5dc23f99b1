"""A component with a placing, and the sizes that this gives; and how blocks are spread over the tiers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.protocol import RESIDENT, STREAM, Placing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.model.shapes import ComponentShapes
    from runner.plan.memory.need import Need

SMALL = 0.1  # of a stage's weights: a component up to this share is resident beside one that is not
Blocks = dict[tuple[int, str], int]
"""Bytes of each block, by the number of its component and its name there."""


@dataclass(frozen=True)
class PlacedComponent:
    """A component's weights in bytes: on the device all the time, brought there each pass, read for that."""

    shapes: ComponentShapes
    placing: Placing
    loaded: int
    resident: int
    moved: int = 0
    """Bytes that come to the device each time that the component runs."""
    read: int = 0
    """Of these, bytes that come from the disk."""


def whole(shapes: ComponentShapes, dtype: str, placing: Placing, *, stays: bool) -> PlacedComponent:
    """A component that stays on the device as a whole, or comes each time as a whole."""
    loaded = shapes.loaded_bytes(dtype)
    return PlacedComponent(shapes, placing, loaded, loaded if stays else 0, 0 if stays else loaded)


def mapped(
    shapes: ComponentShapes, need: Need, placement: str, device_map: Mapping[str, str]
) -> PlacedComponent:
    """A component whose device map says what of it stays; one that stays whole is resident."""
    placing = Placing(placement, device_map)
    loaded: dict[str, int] = defaultdict(int)
    stored: dict[str, int] = defaultdict(int)
    for name in shapes.tensors:
        tier = placing.tier(name)
        loaded[tier] += shapes.tensor_bytes(name, need.dtype)
        stored[tier] += shapes.stored_of(name)
    # what is streamed waits and travels as it is stored; accelerate casts it before
    waiting = 0 if need.on_cpu else (stored if placement == STREAM else loaded)["cpu"]
    moved = waiting + stored["disk"]
    total = sum(loaded.values())
    resident = total - loaded["disk"] - (0 if need.on_cpu else loaded["cpu"])
    return PlacedComponent(
        shapes, placing if moved else Placing(RESIDENT), total, resident, moved, stored["disk"]
    )


def is_small(shapes: ComponentShapes, need: Need) -> bool:
    """Whether it is worth no trouble beside the stage's other components."""
    return shapes.loaded_bytes(need.dtype) <= SMALL * need.weights


def blocks_of(need: Need) -> Blocks:
    """The blocks of the stage's components, but for small ones beside others.

    By number, not by name: files sort 10 before 2.
    """
    return {
        (n, block): size
        for n, shapes in enumerate(need.shapes)
        if not is_small(shapes, need)
        for block, size in sorted(shapes.block_bytes(need.dtype).items(), key=_by_number)
    }


def in_one_stretch(blocks: Blocks, room: int) -> list[tuple[int, str]]:
    """The first blocks, as many as there is room for (bytes)."""
    chosen = []
    for block, size in blocks.items():
        room -= size
        if room < 0:
            break
        chosen.append(block)
    return chosen


def evenly(blocks: Blocks, room: int) -> list[tuple[int, str]]:
    """As many blocks as there is room for, evenly spread: beside each that stays another has time to come."""
    names, count = list(blocks), len(blocks)
    for stay in range(count, 0, -1):
        chosen = [name for n, name in enumerate(names) if (n + 1) * stay // count > n * stay // count]
        if sum(blocks[name] for name in chosen) <= room:
            return chosen
    return []


def maps_of(
    need: Need, blocks: Blocks, stay: Sequence[tuple[int, str]], ram: int, *, as_stored: bool
) -> list[Mapping[str, str]]:
    """Each component's device map: what does not stay waits in RAM as far as ``ram`` goes, else on disk.

    It takes its size in the files there if it waits ``as_stored``.
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
