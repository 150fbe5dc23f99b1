"""Each placement's peaks, part by part: sums that are done by hand, in MiB.

The component has four blocks of 10 (layers of 6 and 4) and a head of 4. An item holds 50 at work and 6 while it
waits; the process takes 180, and 700 more beside a card. Two slots of a block and the reads under way take
2 x 10 + 2 x 16 = 52.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hand_built import MIB, card, component, cpu, requirements

from runner.placements import (
    DEVICE_MAP,
    GROUP_OFFLOAD,
    MODEL_OFFLOAD,
    RESIDENT,
    SEQUENTIAL_OFFLOAD,
    STREAM,
    ComponentPlacement,
)
from runner.plan.candidates import candidates, lowest
from runner.plan.placement_option import Peak

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.plan.limits import Limits
    from runner.plan.placement_option import PlacementOption
    from runner.plan.requirements import MemoryRequirements

PROCESS, STAY, PASSING, ACTIVATIONS = (
    "Python and libraries",
    "weights that stay",
    "weights in passing",
    "activations",
)
WAITING, WEIGHT = "weights that wait in RAM", "a weight on its way"
OVERHEAD = "CUDA context, workspaces, fragmentation"


def of(need: MemoryRequirements, limits: Limits, placement: str, *, fill: bool = True) -> PlacementOption:
    (found,) = [c for c in candidates(need, limits, None, fill=fill) if c.placement == placement]
    return found


def mib(parts: Mapping[str, int] | None) -> dict[str, int]:
    return {name: size // MIB for name, size in (parts or {}).items() if size}


def away(candidate: PlacementOption, n: int = 0) -> dict[str, str]:
    return dict(candidate.components[n].placement.device_map)


def test_resident_on_the_cpu() -> None:
    found = of(requirements(), cpu(None), RESIDENT)
    assert mib(found.ram_parts) == {PROCESS: 180, STAY: 44, ACTIVATIONS: 50}
    assert (found.ram, found.vram, found.group) == (274 * MIB, None, 1)
    assert found.fits(cpu(274))
    assert not found.fits(cpu(273))
    assert found.lack(cpu(270)) == 4 * MIB


def test_streamed_on_the_cpu_room_becomes_items_and_then_blocks_that_stay() -> None:
    # 340 less 2 percent is 333.2; it takes 50 + 4 + 52 + 180 = 286, which leaves 47.2
    found = of(requirements(), cpu(340), STREAM)
    assert found.group == 4  # three that wait take 18 of it, and two blocks 20 of the 29.2 that are left
    assert mib(found.ram_parts) == {
        PROCESS: 180,
        STAY: 24,
        PASSING: 52,
        ACTIVATIONS: 50,
        "of 3 items that wait": 18,
    }
    assert away(found) == {"layers.0": "disk", "layers.2": "disk"}
    (placed,) = found.components
    assert [placed.resident, placed.moved, placed.read, placed.loaded] == [
        24 * MIB,
        20 * MIB,
        20 * MIB,
        44 * MIB,
    ]
    assert found.fits(cpu(340))


def test_items_come_before_blocks() -> None:
    # 305 less 2 percent is 298.9, which leaves 12.9: two items more, and no block
    found = of(requirements(), cpu(305), STREAM)
    assert found.group == 3
    assert mib(found.ram_parts)[STAY] == 4
    # and where it leaves less than one, none
    tight = of(requirements(), cpu(296), STREAM)  # 290.08: 4.08
    assert (tight.group, mib(tight.ram_parts).get("of 1 items that wait")) == (1, None)


def test_streamed_to_hold_little_nothing_stays() -> None:
    found = of(requirements(), cpu(None), STREAM, fill=False)
    assert mib(found.ram_parts)[STAY] == 4
    assert sorted(away(found)) == [f"layers.{n}" for n in range(4)]


def test_all_blocks_that_stay_are_no_stream() -> None:
    found = of(requirements(), cpu(1000), STREAM)
    assert mib(found.ram_parts) == {PROCESS: 180, STAY: 44, ACTIVATIONS: 50}
    assert (found.group, found.components[0].placement) == (1, ComponentPlacement(RESIDENT))


def test_a_cast_passes_too() -> None:
    """Blocks of 10 as stored, of 5 in bfloat16."""
    need = requirements(dtype="bfloat16")
    found = of(need, cpu(None), STREAM, fill=False)
    assert mib(found.ram_parts)[PASSING] == 2 * 10 + 5 + 32
    assert mib(found.ram_parts)[STAY] == 2
    assert found.components[0].read == 40 * MIB


def test_a_cast_to_a_dtype_of_the_same_size_passes_too() -> None:
    found = of(requirements(component(dtype="F16"), dtype="bfloat16"), cpu(None), STREAM, fill=False)
    assert mib(found.ram_parts)[PASSING] == 2 * 10 + 10 + 32


def test_of_a_block_the_weights_that_are_cast_pass_twice() -> None:
    """In each block, the weight of 4 is in bfloat16 already; the one of 6 becomes 3."""
    shapes = component()
    tensors = {
        name: replace(info, dtype="BF16") if name.endswith("b.weight") else info
        for name, info in shapes.tensors.items()
    }
    need = requirements(replace(shapes, tensors=tensors), dtype="bfloat16")
    assert mib(of(need, cpu(None), STREAM, fill=False).ram_parts)[PASSING] == 2 * 10 + 3 + 32


def test_freed_memory_that_is_kept_is_counted() -> None:
    need = requirements().retaining
    assert need is not None
    found = of(need, cpu(None), RESIDENT)
    assert mib(found.ram_parts)["freed memory kept for what comes next"] == 50
    assert found.retains_freed_memory
    assert not of(requirements(), cpu(None), RESIDENT).retains_freed_memory
    # 390 less 2 percent is 382.2; it takes 100 + 4 + 52 + 180 = 336, which leaves 46.2: two that wait, of 18
    streamed = of(need, cpu(390), STREAM)
    assert (streamed.group, mib(streamed.ram_parts)["of 2 items that wait"]) == (3, 36)


def test_a_device_map_on_the_cpu_holds_the_first_blocks() -> None:
    # 275 less 2 percent is 269.5; it takes 50 + 4 + 6 + 180 = 240, which leaves 29.5: two blocks
    found = of(requirements(), cpu(275), DEVICE_MAP)
    assert away(found) == {"layers.2": "disk", "layers.3": "disk"}
    assert mib(found.ram_parts) == {PROCESS: 180, STAY: 24, PASSING: 6, ACTIVATIONS: 50}


def test_streamed_to_a_card() -> None:
    # 768 less 2 percent is 752.6; it takes 560 + 72 + 53 + 4 + 20 = 709, which leaves 43.6
    found = of(requirements(on_cpu=False), card(768, 972), STREAM)
    assert found.group == 4  # 18 of it, and two blocks
    vram = {OVERHEAD: 635, STAY: 24, PASSING: 20, ACTIVATIONS: 50, "of 3 items that wait": 18}
    assert mib(found.vram_parts) == vram
    # 972 less 2 percent is 952.6; it takes 880, two slots and two buffers of 52, and 6: room for one block
    # of the two others one waits in RAM, and one comes from the disk
    assert away(found) == {"layers.0": "cpu", "layers.2": "disk"}
    assert mib(found.ram_parts) == {PROCESS: 880, WEIGHT: 6, WAITING: 10, "blocks on their way": 52}
    assert found.fits(card(768, 972))
    (placed,) = found.components
    assert [placed.moved, placed.read] == [20 * MIB, 10 * MIB]


def test_what_waits_beside_a_card_waits_as_it_is_stored() -> None:
    need = requirements(on_cpu=False, dtype="bfloat16")
    found = of(need, card(None, 3000), STREAM, fill=False)
    assert mib(found.ram_parts)[WAITING] == 40
    # what comes weight by weight is cast before: 20
    dispatched = of(need, card(700, 3000), DEVICE_MAP)
    assert mib(dispatched.ram_parts)[WAITING] == 20


def test_what_waits_takes_ram_as_it_waits() -> None:
    """Blocks of 10 as stored, of 5 in bfloat16; room for 6.9."""
    need = requirements(on_cpu=False, dtype="bfloat16")
    # 908 less 2 percent is 889.8; it takes 880 + 3
    dispatched = of(need, card(690, 908), DEVICE_MAP)
    assert away(dispatched) == {"layers.0": "cpu", **{f"layers.{n}": "disk" for n in (1, 2, 3)}}
    # 961.1 less 2 percent is 941.9; it takes 880 + 52 + 3
    streamed = of(need, card(690, 961.1), STREAM)
    assert away(streamed) == {f"layers.{n}": "disk" for n in range(4)}


def test_a_layer_is_a_weight_and_its_bias() -> None:
    net = component()
    tensors = {name.replace("b.weight", "a.bias"): info for name, info in net.tensors.items()}
    need = requirements(replace(net, tensors=tensors))
    assert mib(of(need, cpu(275), DEVICE_MAP).ram_parts)[PASSING] == 10


def test_a_device_map_beside_a_card() -> None:
    # 720 less 2 percent is 705.6; it takes 685 + 4 + 6 = 695, which leaves 10.6: one block
    found = of(requirements(on_cpu=False), card(720, 920), DEVICE_MAP)
    # 920 less 2 percent is 901.6; it takes 880 + 6, which leaves 15.6: one block waits in RAM
    assert away(found) == {"layers.1": "cpu", "layers.2": "disk", "layers.3": "disk"}
    assert mib(found.vram_parts) == {OVERHEAD: 635, STAY: 14, PASSING: 6, ACTIVATIONS: 50}
    assert mib(found.ram_parts) == {PROCESS: 880, WEIGHT: 6, WAITING: 10}


def test_offloads_of_whole_components_and_of_layers() -> None:
    net, other = component(), component("other", weights=(8, 8))  # 44 and 68
    need = requirements(net, other, on_cpu=False)
    whole = of(need, card(None, None), MODEL_OFFLOAD)
    assert mib(whole.vram_parts) == {OVERHEAD: 635, PASSING: 68, ACTIVATIONS: 50}
    assert mib(whole.ram_parts) == {PROCESS: 880, WEIGHT: 8, WAITING: 112}
    grouped = of(need, card(None, None), GROUP_OFFLOAD)
    assert mib(grouped.vram_parts)[PASSING] == 16  # one layer computes while the next one arrives
    assert mib(grouped.ram_parts)["weights in RAM, and pinned"] == 224
    sequential = of(need, card(None, None), SEQUENTIAL_OFFLOAD)
    assert mib(sequential.vram_parts)[PASSING] == 8
    assert mib(sequential.ram_parts)[WAITING] == 112
    assert [p.placement.device_map for p in sequential.components] == [{"": "cpu"}] * 2


def test_small_components_stay_beside_others() -> None:
    net, small = component(), component("small", blocks=2, weights=(1,), head=2)  # 44 and 4 of 48
    need = requirements(net, small, on_cpu=False)
    grouped = of(need, card(None, None), GROUP_OFFLOAD)
    assert mib(grouped.vram_parts)[STAY] == 4
    assert mib(grouped.ram_parts)["weights in RAM, and pinned"] == 88
    streamed = of(need, card(None, None), STREAM, fill=False)
    assert mib(streamed.vram_parts)[STAY] == 8
    assert streamed.components[1].placement == ComponentPlacement(RESIDENT)


def test_what_each_device_has() -> None:
    net, other = component(), component("other")

    def names(need: MemoryRequirements, limits: Limits) -> list[str]:
        return [c.placement for c in candidates(need, limits, None)]

    on_card = [RESIDENT, MODEL_OFFLOAD, STREAM, GROUP_OFFLOAD, DEVICE_MAP, SEQUENTIAL_OFFLOAD]
    assert names(requirements(net, other), cpu(None)) == [RESIDENT, STREAM, DEVICE_MAP]
    assert names(requirements(net, other, on_cpu=False), card(None, None)) == on_card
    assert MODEL_OFFLOAD not in names(requirements(net, on_cpu=False), card(None, None))
    flat = component(blocks=1)
    assert STREAM not in names(requirements(flat), cpu(None))
    assert names(requirements(shapes=()), cpu(None)) == [RESIDENT]


def test_a_map_of_ones_own() -> None:
    found = {
        c.placement: c
        for c in candidates(requirements(), cpu(1000), {"layers.1": "disk", "head": "cpu", "": 0})
    }
    assert list(found) == [DEVICE_MAP, STREAM]
    assert mib(found[DEVICE_MAP].ram_parts) == {PROCESS: 180, STAY: 34, PASSING: 6, ACTIVATIONS: 50}
    streamed = found[STREAM]
    assert mib(streamed.ram_parts)[STAY] == 34
    assert mib(streamed.ram_parts)[PASSING] == 52
    assert streamed.group == 4
    nothing = {c.placement: c for c in candidates(requirements(), cpu(1000), {"": "cuda:0"})}
    assert mib(nothing[STREAM].ram_parts) == {PROCESS: 180, STAY: 44, ACTIVATIONS: 50}
    on_card = {
        c.placement: c for c in candidates(requirements(on_cpu=False), card(2000, 3000), {"layers.1": "cpu"})
    }
    assert mib(on_card[STREAM].ram_parts)[WAITING] == 10
    assert mib(on_card[STREAM].vram_parts)[STAY] == 34


def test_the_lowest_holds_no_block_at_all() -> None:
    found = lowest(requirements(), cpu(None))
    assert found is not None
    assert (found.placement, found.group) == (STREAM, 1)
    assert mib(found.ram_parts) == {PROCESS: 180, STAY: 4, PASSING: 52, ACTIVATIONS: 50}
    on_card = lowest(requirements(on_cpu=False), card(None, 100_000))
    assert on_card is not None
    assert mib(on_card.vram_parts) == {OVERHEAD: 635, STAY: 4, PASSING: 20, ACTIVATIONS: 50}
    flat = lowest(requirements(component(blocks=1)), cpu(None))
    assert flat is not None
    assert flat.placement == DEVICE_MAP
    assert lowest(requirements(shapes=()), cpu(None)) is None


def test_a_peak_and_its_limit() -> None:
    assert Peak("RAM", {"a": 3, "b": 4}, 7).lack == 0
    assert Peak("RAM", {"a": 3, "b": 4}, 5).lack == 2
    assert Peak("RAM", {"a": 3}, None).lack == 0
    both = of(requirements(on_cpu=False), card(None, None), RESIDENT)
    assert [peak.kind for peak in both.peaks(card(1, 1))] == ["VRAM", "RAM"]
    assert both.lack(card(both.vram / MIB - 2 if both.vram else 0, both.ram / MIB - 3)) == pytest.approx(
        5 * MIB
    )
