"""Components that bitsandbytes has quantised: what their layers hold, and what is refused when they are loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
import weight_forms as forms
from bitsandbytes_weights import FILE
from safetensors.torch import load_file, save_file

from runner.errors import ModelError
from runner.placement.bitsandbytes import quantised_layers
from runner.placement.library import open_module
from runner.placement.loader import ComponentLoader
from runner.placements import ComponentPlacement

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


def loaded(folder: Path, placement: ComponentPlacement) -> Any:
    loader = ComponentLoader(CPU, forms.HALF)
    return loader.load(diffusers.FluxTransformer2DModel, forms.opened(folder), placement)


def test_layers_in_int8_hold_no_weight_after_a_call(tmp_path: Path) -> None:
    """The library's layer keeps what it has computed with, beside the weight that is replaced."""
    folder = forms.make(tmp_path, "LLM.int8")
    model = loaded(folder, ComponentPlacement("device-map", dict.fromkeys(forms.BLOCKS, "disk")))
    forms.call(model, 0)
    layers = [layer for name, layer in quantised_layers(model).items() if name.startswith(forms.BLOCKS)]
    assert layers
    assert all(layer.state.CB is None and layer.state.SCB is None for layer in layers)
    assert all(layer.weight.is_meta or layer.weight.device.type == "cpu" for layer in layers)


def test_a_call_in_int8_leaves_the_weight_as_it_was(tmp_path: Path) -> None:
    model = loaded(forms.make(tmp_path, "LLM.int8"), ComponentPlacement("resident"))
    first = forms.call(model, 0)
    assert all(layer.weight.CB is not None for layer in quantised_layers(model).values())
    assert torch.equal(forms.call(model, 0), first)


def test_weights_in_4_bits_are_dequantised_on_every_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library has kernels for a CPU, with AVX-512 and bfloat16, they would put the bytes in order."""
    folder = forms.make(tmp_path, "nf4 double")
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    opened = open_module(diffusers.FluxTransformer2DModel, forms.opened(folder), forms.HALF)
    layers = quantised_layers(opened.module)
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers.values())


def test_files_that_changed_since_they_were_planned(tmp_path: Path) -> None:
    """Nothing of them reaches the library."""
    folder = forms.make(tmp_path, "nf4 double")
    file = folder / "quantised" / FILE
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("nested_quant_map"))
    save_file({**tensors, name: torch.zeros(8)}, file)
    with pytest.raises(ModelError, match=rf"'{name}' is F32, 8, and should be 256 numbers"):
        loaded(folder, ComponentPlacement("resident"))


def test_a_stage_in_another_dtype_than_the_layers(tmp_path: Path) -> None:
    """They compute in the dtype that the config says: the same in every placement, as in the library."""
    folder = forms.make(tmp_path, "nf4")
    config = folder / "quantised/config.json"
    said = json.loads(config.read_text())
    said["quantization_config"]["bnb_4bit_compute_dtype"] = "float16"
    config.write_text(json.dumps(said))
    expected = [forms.call(forms.theirs(folder, "nf4"), number) for number in range(forms.CALLS)]
    for placement in ("stream", "device-map"):
        results, _ = forms.made(folder, ComponentPlacement(placement, dict.fromkeys(forms.BLOCKS, "disk")))
        assert all(map(torch.equal, results, expected))
