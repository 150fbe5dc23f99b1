"""Hidden states of transformers' models, which hooks on their layers record, with streamed weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from tiny_models.texts import qwen3
from towers import together

from runner.api import Component
from runner.model.files import open_component
from runner.placement.loader import ComponentLoader
from runner.placements import RESIDENT, STREAM, ComponentPlacement

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
LAYERS = {f"model.layers.{n}": "disk" for n in range(3)}


def test_each_layers_are_recorded_once_for_every_call_in_lockstep(tmp_path: Path) -> None:
    qwen3(causal=True).save_pretrained(tmp_path / "text_encoder")
    files = open_component(tmp_path, Component("text_encoder", "transformers:Qwen3ForCausalLM"))

    def load(loader: ComponentLoader, placement: ComponentPlacement) -> Any:
        from transformers import Qwen3ForCausalLM

        return loader.load(Qwen3ForCausalLM, files, placement)

    def states(model: Any, number: int) -> Any:
        ids = torch.arange(number, number + 7)[None]
        return model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states

    with torch.inference_mode():
        resident = load(ComponentLoader(CPU, torch.float32), ComponentPlacement(RESIDENT))
        expected = [states(resident, number) for number in range(3)]
        loader = ComponentLoader(CPU, torch.float32)
        streamed = load(loader, ComponentPlacement(STREAM, LAYERS))
        found = together(loader.stream, [partial(states, streamed, number) for number in range(3)])
    assert loader.stream.bytes_read
    for own, other in zip(found, expected, strict=True):
        assert len(own) == len(other) == 4
        assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))
