"""Which tier a weight is on, by a placement's map, and which blocks are streamed as a whole."""

from __future__ import annotations

from runner.placements import STREAM, ComponentPlacement, own_name

PLACEMENT = ComponentPlacement(STREAM, {"layers": "disk", "layers.1": "cpu", "text_model.head": "cpu"})


def test_names_inside_layers_that_adapters_wrap_are_those_without() -> None:
    placement = ComponentPlacement("stream", {"a.to_q.weight": "disk", "text_model.b": "cpu"})
    assert placement.tier("a.to_q.base_layer.weight") == "disk"
    assert placement.tier("b.0.to_q.base_layer.weight") == "cpu"
    assert placement.tier("a.to_k.base_layer.weight") == "device"


def test_the_longest_name_that_contains_a_weight_decides() -> None:
    names = ("layers.0.weight", "layers.1.weight", "layers.10.weight", "layersnorm.weight", "head.bias")
    assert [PLACEMENT.tier(name) for name in names] == ["disk", "cpu", "disk", "device", "cpu"]
    assert [PLACEMENT.is_offloaded(name) for name in names] == [True, True, True, False, True]
    assert [PLACEMENT.in_ram(name) for name in names] == [False, True, False, False, True]


def test_the_empty_name_is_the_whole_component() -> None:
    assert ComponentPlacement(STREAM, {"": "cpu"}).in_ram("any.weight")


def test_blocks_are_streamed_if_all_their_weights_are_on_one_tier_off_the_device() -> None:
    blocks = {
        "layers.0": ["layers.0.a", "layers.0.b"],
        "layers": ["layers.0.a", "layers.1.a"],
        "norm": ["norm.a"],
    }
    assert PLACEMENT.streamed(blocks) == ["layers.0"]


def test_names_of_files_are_found_among_a_models_own() -> None:
    names = {"encoder.block.0", "norm"}
    assert own_name("model.encoder.block.0", names) == "encoder.block.0"
    assert own_name("block.0", names) == "encoder.block.0"
    assert own_name("other", names) == "other"
    placement = ComponentPlacement(STREAM, {"block.0": "disk"}).with_module_names(names)
    assert placement.device_map == {"encoder.block.0": "disk"}
