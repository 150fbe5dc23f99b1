"""The placements that a stage can have, fastest first, each with its predicted memory peaks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.placements import (
    DEVICE_MAP,
    GROUP_OFFLOAD,
    MODEL_OFFLOAD,
    RESIDENT,
    SEQUENTIAL_OFFLOAD,
    STREAM,
    STREAM_CHUNK,
    STREAM_READERS,
    ComponentPlacement,
)
from runner.plan.component_placement import (
    PlacedComponent,
    blocks_of,
    evenly,
    in_one_stretch,
    is_small,
    mapped,
    maps_of,
    whole,
)
from runner.plan.device_map import in_file_names
from runner.plan.placement_option import PlacementOption
from runner.plan.throughput import group_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.manifest.schema import StageTable
    from runner.model.shapes import ComponentShapes
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

MARGIN = 0.02  # share of a limit that is left free of blocks: the usual error of predictions
PINNED = 2.0  # diffusers pins a copy of every weight beside the weight itself
WAITING = "weights that wait in RAM"


@dataclass(frozen=True)
class TransientMemory:
    """Bytes that hold weights only while a block or layer needs them."""

    slots: int = 0
    """On the device that computes; an accelerator's are staged in as much RAM."""
    cast: int = 0
    """On that device: those of a block's weights that are cast, in the dtype that they compute in."""
    layer: int = 0
    """On that device, for weights outside of blocks."""
    buffers: int = 0
    """RAM that files are read into."""

    @property
    def on_device(self) -> int:
        return self.slots + self.cast + self.layer

    @property
    def staged(self) -> int:
        """RAM beside an accelerator."""
        return self.slots + self.buffers


def candidates(
    need: MemoryRequirements, limits: Limits, device_map: Mapping[str, str | int] | None, *, fill: bool = True
) -> Iterator[PlacementOption]:
    """Every placement that the device has, fastest first.

    ``device_map`` is the manifest's. With ``fill``, streaming keeps as many blocks on the device as there is
    room for.
    """
    if device_map is not None:
        for placement in (DEVICE_MAP, STREAM):
            yield _as_mapped(need, limits, placement, device_map)
        return
    yield _candidate(
        RESIDENT, need, [whole(s, need.dtype, ComponentPlacement(RESIDENT), stays=True) for s in need.shapes]
    )
    if not need.shapes:
        return
    if not limits.on_cpu and len(need.shapes) > 1:
        yield _model_offload(need)
    if blocks_of(need):
        yield _stream(need, limits, fill=fill)
    if not limits.on_cpu and not any(q.excludes(GROUP_OFFLOAD) for q in need.quantisations):
        yield _offload(need, GROUP_OFFLOAD, {})
    yield _device_map(need, limits)
    if not limits.on_cpu:
        yield _offload(need, SEQUENTIAL_OFFLOAD, {"": "cpu"})


def fastest_that_fits(
    need: MemoryRequirements, limits: Limits, table: StageTable | None = None
) -> PlacementOption | None:
    """The fastest placement that fits; only those that the stage's ``table`` allows, if it is given."""
    wanted = table.placement if table else "auto"
    known = candidates(need, limits, table.device_map if table else None)
    return next((c for c in known if wanted in ("auto", c.placement) and c.fits(limits)), None)


def lowest(need: MemoryRequirements, limits: Limits) -> PlacementOption | None:
    """The placement that holds least: every block is loaded when it runs. None if there are no weights."""
    if not need.shapes:
        return None
    no_room = replace(limits, ram=0) if limits.on_cpu else replace(limits, vram=0)
    return _stream(need, no_room, fill=False) if blocks_of(need) else _device_map(need, no_room)


def _model_offload(need: MemoryRequirements) -> PlacementOption:
    placed = [
        whole(shapes, need.dtype, ComponentPlacement(MODEL_OFFLOAD), stays=False) for shapes in need.shapes
    ]
    host = {WAITING: sum(p.loaded for p in placed)}
    return _candidate(MODEL_OFFLOAD, need, placed, host, TransientMemory(layer=max(p.loaded for p in placed)))


def _offload(need: MemoryRequirements, placement: str, device_map: Mapping[str, str]) -> PlacementOption:
    """Layers are moved one by one; small components are resident."""
    small = [shapes for shapes in need.shapes if is_small(shapes, need)]
    big = [shapes for shapes in need.shapes if not is_small(shapes, need)]
    placed = [whole(s, need.dtype, ComponentPlacement(RESIDENT), stays=True) for s in small]
    placed += [whole(s, need.dtype, ComponentPlacement(placement, device_map), stays=False) for s in big]
    moved, layer = sum(p.moved for p in placed), max(_largest_layer(s, need.dtype) for s in big)
    if placement == GROUP_OFFLOAD:  # one layer computes while the next one arrives
        return _candidate(
            placement,
            need,
            placed,
            {"weights in RAM, and pinned": int(moved * PINNED)},
            TransientMemory(layer=2 * layer),
        )
    return _candidate(placement, need, placed, {WAITING: moved}, TransientMemory(layer=layer))


def _device_map(need: MemoryRequirements, limits: Limits) -> PlacementOption:
    """Blocks on the device as long as they fit, then in RAM, then on disk."""
    blocks = blocks_of(need)
    layer = max(_largest_layer(shapes, need.dtype) for shapes in need.shapes)
    room, ram = _rooms(need, limits, sum(blocks.values()), TransientMemory(layer=layer))
    maps = maps_of(need, blocks, in_one_stretch(blocks, room), ram, as_stored=False)
    placed = [mapped(s, need, DEVICE_MAP, m) for s, m in zip(need.shapes, maps, strict=True)]
    return _loaded_when_run(DEVICE_MAP, need, placed, TransientMemory(layer=layer))


def _stream(need: MemoryRequirements, limits: Limits, *, fill: bool) -> PlacementOption:
    """Two slots of the largest block; the rest of the room keeps blocks on the device, then in pinned RAM."""
    blocks = blocks_of(need)
    transient = _slots([(s, names) for s in need.shapes for names in s.blocks.values()], need)
    room, ram = _rooms(need, limits, sum(blocks.values()), transient)
    group = group_size(need, limits, room)
    waiting = (group - 1) * need.suspended
    stay = evenly(blocks, room - waiting) if fill else []
    maps = maps_of(need, blocks, stay, ram, as_stored=True)
    placed = [mapped(s, need, STREAM, m) for s, m in zip(need.shapes, maps, strict=True)]
    return _loaded_when_run(STREAM, need, placed, transient, group)


def _as_mapped(
    need: MemoryRequirements, limits: Limits, placement: str, device_map: Mapping[str, str | int]
) -> PlacementOption:
    """As the manifest's device map says."""
    maps = [in_file_names(device_map, shapes, on_cpu=need.on_cpu) for shapes in need.shapes]
    placed, transient = _placed_by(maps, need, placement)
    group = 1
    if transient.slots:
        room, _ = _rooms(need, limits, sum(p.moved for p in placed), transient)
        group = group_size(need, limits, room)
    return _loaded_when_run(placement, need, placed, transient, group)


def _placed_by(
    maps: Iterable[Mapping[str, str]], need: MemoryRequirements, placement: str
) -> tuple[list[PlacedComponent], TransientMemory]:
    """Each component placed by its own device map, and the transient memory that this takes."""
    placed = [mapped(s, need, placement, m) for s, m in zip(need.shapes, maps, strict=True)]
    blocks = [(p.shapes, p.shapes.blocks[block]) for p in placed for block in p.streamed]
    # weights outside of blocks are moved one by one
    layer = max((_largest_layer(p.shapes, need.dtype) for p in placed if p.on_demand), default=0)
    return placed, replace(_slots(blocks, need), layer=layer)


def placed_alike(need: MemoryRequirements, limits: Limits, option: PlacementOption) -> PlacementOption:
    """``option``, recomputed for other weights of its components: the same parts stay and move."""
    if option.placement not in (STREAM, DEVICE_MAP):
        return next(c for c in candidates(need, limits, None) if c.placement == option.placement)
    maps = [placed.placement.device_map for placed in option.components]
    placed, transient = _placed_by(maps, need, option.placement)
    return _loaded_when_run(option.placement, need, placed, transient, option.group)


def _rooms(
    need: MemoryRequirements, limits: Limits, in_blocks: int, transient: TransientMemory
) -> tuple[int, int]:
    """Bytes left for blocks on the device, and in RAM (0 on the CPU)."""
    taken = need.working + need.weights - in_blocks + transient.on_device
    if limits.on_cpu:
        return _room(limits.ram, taken + transient.buffers + need.process), 0
    in_ram = need.process + transient.staged + _largest_weight(need)
    return _room(limits.vram, taken), _room(limits.ram, in_ram)


def _room(limit: int | None, taken: int) -> int:
    return 1 << 62 if limit is None else max(0, int(limit * (1 - MARGIN)) - taken)


def _slots(
    blocks: Iterable[tuple[ComponentShapes, Sequence[str]]], need: MemoryRequirements
) -> TransientMemory:
    """What streaming takes: two slots of the largest block as stored, the casts of a block, and read buffers.

    A block is its component and the names of its weights.
    """
    largest = cast = 0
    for shapes, names in blocks:
        largest = max(largest, sum(shapes.stored_of(name) for name in names))
        cast = max(cast, sum(shapes.cast_bytes(name, need.dtype) for name in names))
    return TransientMemory(2 * largest, cast, buffers=STREAM_READERS * STREAM_CHUNK if largest else 0)


def _largest_weight(need: MemoryRequirements) -> int:
    return max((shapes.largest_bytes(need.dtype) for shapes in need.shapes), default=0)


def _largest_layer(shapes: ComponentShapes, dtype: str) -> int:
    """Bytes of the largest layer, a weight and its bias: layers are moved as a whole."""
    layers: dict[str, int] = defaultdict(int)
    for name in shapes.tensors:
        # scales of bitsandbytes are beside the weight's own name
        layers[name.rpartition(".")[0].removesuffix(".weight")] += shapes.tensor_bytes(name, dtype)
    return max(layers.values(), default=0)


def _loaded_when_run(
    placement: str,
    need: MemoryRequirements,
    placed: list[PlacedComponent],
    transient: TransientMemory,
    group: int = 1,
) -> PlacementOption:
    """A candidate whose blocks are loaded when they run: from disk, or beside an accelerator from RAM."""
    moving = any(p.moved for p in placed)
    host = {} if need.on_cpu else {WAITING: sum(p.moved - p.read for p in placed)}
    if placement == STREAM and not need.on_cpu and moving:
        host["blocks on their way"] = transient.staged
    if not moving:
        transient, group = TransientMemory(), 1
    return _candidate(placement, need, placed, host, transient, group)


def _candidate(
    placement: str,
    need: MemoryRequirements,
    placed: list[PlacedComponent],
    host: Mapping[str, int] | None = None,
    transient: TransientMemory | None = None,
    group: int = 1,
) -> PlacementOption:
    """A candidate with its peaks; ``host`` are bytes that wait in RAM for an accelerator."""
    transient = transient or TransientMemory()
    resident = sum(p.resident for p in placed)
    transient_bytes = transient.on_device + (transient.buffers if need.on_cpu else 0)
    on_device = {"weights that stay": resident, "weights in passing": transient_bytes}
    on_device["activations"] = need.activations
    if need.dequantised:
        on_device["a layer's weight, dequantised"] = need.dequantised
    if group > 1:
        on_device[f"of {group - 1} items that wait"] = (group - 1) * need.suspended
    process = {"Python and libraries": need.process}
    if need.on_cpu:
        kept = {"freed memory kept for what comes next": need.retained} if need.retained else {}
        parts = {**process, **on_device, **kept}
        return PlacementOption(
            placement, tuple(placed), parts, group=group, retains_freed_memory=need.retains_freed_memory
        )
    # weights are cast or copied to the device through RAM, one at a time
    weight = _largest_weight(need)
    overhead = {"CUDA context, workspaces, fragmentation": need.working - need.activations - need.dequantised}
    return PlacementOption(
        placement,
        tuple(placed),
        ram_parts={**process, "a weight on its way": weight, **(host or {})},
        vram_parts={**overhead, **on_device},
        group=group,
    )
