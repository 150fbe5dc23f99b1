"""How blocks are spread over the tiers."""

from __future__ import annotations

from hand_built import MIB, component, requirements

from runner.placements import RESIDENT, ComponentPlacement
from runner.plan.component_placement import blocks_of, evenly, in_one_stretch, is_small, maps_of, whole

BLOCKS = {(0, f"b{n}"): 10 for n in range(5)}


def test_evenly_spread_and_as_many_as_fit() -> None:
    def spread(room: int) -> list[str]:
        return [name for _, name in evenly(BLOCKS, room)]

    assert spread(9) == []
    assert spread(10) == ["b4"]
    assert spread(29) == ["b2", "b4"]
    assert spread(50) == ["b0", "b1", "b2", "b3", "b4"]
    assert evenly({**BLOCKS, (0, "b4"): 100}, 20) == []  # the last would always be among them
    assert evenly({}, 10) == []


def test_in_one_stretch_from_the_first() -> None:
    def first(room: int) -> list[str]:
        return [name for _, name in in_one_stretch(BLOCKS, room)]

    assert first(9) == []
    assert first(10) == ["b0"]
    assert first(39) == ["b0", "b1", "b2"]
    assert first(1000) == ["b0", "b1", "b2", "b3", "b4"]
    large = {(0, "b0"): 10, (0, "b1"): 100, (0, "b2"): 10}
    assert in_one_stretch(large, 50) == [(0, "b0")]


def test_blocks_are_in_the_order_of_their_numbers() -> None:
    net = component(blocks=12)
    assert [name for _, name in blocks_of(requirements(net))] == [f"layers.{n}" for n in range(12)]
    assert set(blocks_of(requirements(net)).values()) == {10 * MIB}
    assert set(blocks_of(requirements(net, dtype="bfloat16")).values()) == {5 * MIB}


def test_what_is_small_is_a_tenth_at_most() -> None:
    net, tenth, more = component(head=50), component("t", blocks=1, head=0), component("m", blocks=1, head=1)
    assert is_small(tenth, requirements(net, tenth))  # 10 of 100
    assert not is_small(more, requirements(net, more))  # 11 of 101
    assert not is_small(net, requirements(net))
    assert len(blocks_of(requirements(net, component("s", weights=(1, 1), head=0)))) == 4


def test_what_does_not_stay_waits_in_ram_as_far_as_that_goes() -> None:
    need = requirements(on_cpu=False, dtype="bfloat16")
    blocks = blocks_of(need)
    stay = [(0, "layers.1")]
    (as_loaded,) = maps_of(need, blocks, stay, 11 * MIB, as_stored=False)  # 5 each
    assert as_loaded == {"layers.0": "cpu", "layers.2": "cpu", "layers.3": "disk"}
    (as_stored,) = maps_of(need, blocks, stay, 11 * MIB, as_stored=True)  # 10 each
    assert as_stored == {"layers.0": "cpu", "layers.2": "disk", "layers.3": "disk"}
    assert maps_of(need, blocks, list(blocks), 0, as_stored=True) == [{}]


def test_a_component_as_a_whole() -> None:
    stays = whole(component(), "float32", ComponentPlacement(RESIDENT), stays=True)
    comes = whole(component(), "float32", ComponentPlacement(RESIDENT), stays=False)
    assert (stays.loaded, stays.resident, stays.moved) == (44 * MIB, 44 * MIB, 0)
    assert (comes.loaded, comes.resident, comes.moved) == (44 * MIB, 0, 44 * MIB)
