"""The ways to place a stage's weights, fastest first, each with the peaks that it would have."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.protocol import Placing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.model.shapes import ComponentShapes
    from runner.plan.memory.limits import Limits
    from runner.plan.memory.need import Need

RESIDENT, DEVICE_MAP, MODEL, GROUP, SEQUENTIAL = (
    "resident", "device-map", "model-offload", "group-offload", "sequential-offload",
)  # fmt: skip
SMALL = 0.1  # of a stage's weights: a component up to this share is resident beside one that is not
PINNED = 2.0  # diffusers pins a copy of every weight beside the weight itself


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


@dataclass(frozen=True)
class Candidate:
    """A placing for every component, and the peaks in bytes that it is predicted to have."""

    placement: str
    components: tuple[PlacedComponent, ...]
    ram_parts: Mapping[str, int]
    """What the peak of RAM is made of, in words."""
    vram_parts: Mapping[str, int] | None = None

    @property
    def ram(self) -> int:
        return sum(self.ram_parts.values())

    @property
    def vram(self) -> int | None:
        return None if self.vram_parts is None else sum(self.vram_parts.values())

    def fits(self, limits: Limits) -> bool:
        return self.lacks(limits) == (0, 0)

    def lacks(self, limits: Limits) -> tuple[int, int]:
        """Bytes of VRAM and RAM that it would need beyond the limits."""
        vram = max(0, (self.vram or 0) - limits.vram) if limits.vram is not None else 0
        return vram, max(0, self.ram - limits.ram) if limits.ram is not None else 0

    @property
    def placings(self) -> dict[str, Placing]:
        return {placed.shapes.component.name: placed.placing for placed in self.components}


def candidates(need: Need, limits: Limits, own_map: Mapping[str, str | int] | None) -> Iterator[Candidate]:
    """Every placement that the device has, fastest first; ``own_map`` is the manifest's device map."""
    tiers = {name: _tier_name(device) for name, device in (own_map or {}).items()}
    if own_map is None:
        yield _resident(need)
        if not limits.on_cpu and len(need.shapes) > 1:
            yield _model_offload(need)
        if not limits.on_cpu and need.shapes:
            yield _group_offload(need)
    if need.shapes:
        yield _device_map(need, limits, tiers)
    if own_map is None and not limits.on_cpu and need.shapes:
        yield _sequential_offload(need)


def lowest(need: Need, limits: Limits) -> Candidate | None:
    """The placement that holds least: every block comes when it runs; None where there are no weights."""
    if not need.shapes:
        return None
    no_room = replace(limits, ram=0) if limits.on_cpu else replace(limits, vram=0)
    return _device_map(need, no_room, {})


def _resident(need: Need) -> Candidate:
    placed = [_whole(shapes, need, RESIDENT) for shapes in need.shapes]
    return _candidate(RESIDENT, need, placed, host={}, transient=0)


def _whole(shapes: ComponentShapes, need: Need, placement: str) -> PlacedComponent:
    loaded = shapes.loaded_bytes(need.dtype)
    return PlacedComponent(shapes, Placing(placement), loaded, resident=loaded)


def _model_offload(need: Need) -> Candidate:
    placed = [
        PlacedComponent(shapes, Placing(MODEL), size, resident=0, moved=size)
        for shapes in need.shapes
        for size in [shapes.loaded_bytes(need.dtype)]
    ]
    host = {"weights that wait in RAM": sum(p.loaded for p in placed)}
    return _candidate(MODEL, need, placed, host, transient=max(p.loaded for p in placed))


def _group_offload(need: Need) -> Candidate:
    big, placed = _big_and_small(need)
    placed += [_all_moved(shapes, need, GROUP) for shapes in big]
    pinned = sum(int(p.loaded * PINNED) for p in placed if p.moved)
    leaf = max(_largest_layer(shapes, need.dtype) for shapes in big)
    # one layer computes while the next one arrives
    return _candidate(GROUP, need, placed, {"weights in RAM, and pinned copies": pinned}, transient=2 * leaf)


def _sequential_offload(need: Need) -> Candidate:
    big, placed = _big_and_small(need)
    placed += [_all_moved(shapes, need, SEQUENTIAL, {"": "cpu"}) for shapes in big]
    held = sum(p.moved for p in placed)
    leaf = max(_largest_layer(shapes, need.dtype) for shapes in big)
    return _candidate(SEQUENTIAL, need, placed, {"weights that wait in RAM": held}, transient=leaf)


def _all_moved(
    shapes: ComponentShapes, need: Need, placement: str, device_map: Mapping[str, str] | None = None
) -> PlacedComponent:
    loaded = shapes.loaded_bytes(need.dtype)
    return PlacedComponent(shapes, Placing(placement, device_map or {}), loaded, resident=0, moved=loaded)


def _big_and_small(need: Need) -> tuple[list[ComponentShapes], list[PlacedComponent]]:
    """Components that are to be offloaded, and the small ones beside them, resident."""
    small = [s for s in need.shapes if s.loaded_bytes(need.dtype) <= SMALL * need.weights]
    return [s for s in need.shapes if s not in small], [_whole(s, need, RESIDENT) for s in small]


def _device_map(need: Need, limits: Limits, own: Mapping[str, str]) -> Candidate:
    """Blocks on the device as long as they fit, then in RAM, then on disk; or the manifest's own map."""
    blocks = {
        (n, block): size
        for n, shapes in enumerate(need.shapes)
        for block, size in _in_order(shapes.block_bytes(need.dtype))
    }
    layer = max(_largest_layer(shapes, need.dtype) for shapes in need.shapes)
    outside = need.weights - sum(blocks.values())
    device = limits.ram if limits.on_cpu else limits.vram
    taken = need.working + outside + layer + (need.process if limits.on_cpu else 0)
    rooms = {
        "device": _room(device, taken),
        "cpu": 0 if limits.on_cpu else _room(limits.ram, need.process + layer),
    }
    tiers: dict[tuple[int, str], str] = {}
    for (n, block), size in blocks.items():
        tier = next((name for name, room in rooms.items() if size <= room), "disk")
        if tier != "device" and tier in rooms:
            rooms["device"] = 0  # no hole is filled later on: what is resident is one stretch
        if tier in rooms:
            rooms[tier] -= size
        tiers[n, block] = tier
    placed = [
        _mapped(
            shapes, need, own or {b: tier for (m, b), tier in tiers.items() if m == n and tier != "device"}
        )
        for n, shapes in enumerate(need.shapes)
    ]
    host = {} if limits.on_cpu else {"weights that wait in RAM": sum(p.moved - p.read for p in placed)}
    moving = any(p.moved for p in placed)
    return _candidate(DEVICE_MAP, need, placed, host, transient=layer if moving else 0)


def _room(limit: int | None, taken: int) -> int:
    return 1 << 62 if limit is None else max(0, limit - taken)


def _mapped(shapes: ComponentShapes, need: Need, device_map: Mapping[str, str]) -> PlacedComponent:
    sizes: dict[str, int] = defaultdict(int)
    placing = Placing(DEVICE_MAP, device_map)
    for name in shapes.tensors:
        sizes[placing.tier(name)] += shapes.tensor_bytes(name, need.dtype)
    loaded, read = sum(sizes.values()), sizes["disk"]
    moved = read + (0 if need.on_cpu else sizes["cpu"])
    if not moved:
        placing = Placing(RESIDENT)
    return PlacedComponent(shapes, placing, loaded, loaded - moved, moved, read)


def _tier_name(device: str | int) -> str:
    """Every accelerator is the budget's own: a manifest may write it as 0, "cuda" or "cuda:0"."""
    return device if isinstance(device, str) and device in ("cpu", "disk") else "device"


def _in_order(blocks: Mapping[str, int]) -> list[tuple[str, int]]:
    """Blocks by number, not by name: files sort 10 before 2."""
    return sorted(
        blocks.items(), key=lambda b: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", b[0])]
    )


def _largest_layer(shapes: ComponentShapes, dtype: str) -> int:
    """Bytes of the largest layer, which is what accelerate brings at a time: a weight and its bias."""
    layers: dict[str, int] = defaultdict(int)
    for name in shapes.tensors:
        layers[name.rpartition(".")[0]] += shapes.tensor_bytes(name, dtype)
    return max(layers.values(), default=0)


def _candidate(
    placement: str, need: Need, placed: list[PlacedComponent], host: Mapping[str, int], transient: int
) -> Candidate:
    """``host`` is what waits in RAM for an accelerator, ``transient`` what is on the device in passing."""
    resident = sum(p.resident for p in placed)
    on_device = {"weights that stay": resident, "weights in passing": transient}
    on_device["activations"] = need.activations
    process = {"Python and libraries": need.process}
    if need.on_cpu:
        return Candidate(placement, tuple(placed), {**process, **on_device})
    # what is cast or copied on its way to the device passes through RAM, a weight at a time
    weight = max((shapes.largest_bytes(need.dtype) for shapes in need.shapes), default=0)
    overhead = {"CUDA context, workspaces, fragmentation": need.working - need.activations}
    return Candidate(
        placement,
        tuple(placed),
        ram_parts={**process, "a weight on its way": weight, **host},
        vram_parts={**overhead, **on_device},
    )
