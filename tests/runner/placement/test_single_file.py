"""Single files of weights: what is loaded takes the memory that the plan counts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import diffusers
import pytest
import torch
from single_files import weights_of, write, write_gguf
from tiny_models import checkpoint

from runner.api import Component
from runner.model.files import open_component, open_file
from runner.placement.library import open_module
from runner.stream.names import locate

if TYPE_CHECKING:
    from pathlib import Path

CLASS = diffusers.WanTransformer3DModel
KEPT = tuple(CLASS._keep_in_fp32_modules)
COMPONENT = Component(
    "transformer",
    "diffusers:WanTransformer3DModel",
    float32={"bfloat16": KEPT, "float16": KEPT},
)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["", "BF16"])
def test_weights_in_float32_are_those_of_diffusers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, dtype: str
) -> None:
    """From a folder, diffusers keeps some, and of GGUF; from another file it casts all, twice in float16."""
    folder = checkpoint("wan21", tmp_path)
    weights = {name: weight.bfloat16() for name, weight in weights_of(folder / "transformer").items()}
    file = tmp_path / f"some.{'gguf' if kind else 'safetensors'}"
    write_gguf(file, weights, kind) if kind else write(file, weights)
    config = open_component(folder, replace(COMPONENT, config_only=True))
    files = replace(open_file(tmp_path, COMPONENT, file.name), configured=config)
    mapped = open_module(CLASS, files, getattr(torch, dtype))
    kept = {
        name for name, weight in mapped.module.named_parameters() if mapped.dtype_of(weight) == torch.float32
    }
    assert bool(kept) == bool(kind)
    names = {name for name, _ in mapped.module.named_parameters()}
    assert {*locate(mapped.module, files)} == names - files.shapes.computed
    made = mapped.materialize(torch.device("cpu"))
    loaded = sum(weight.numel() * weight.element_size() for weight in made.parameters())
    assert files.shapes.loaded_bytes(dtype) == loaded
    assert not [record for record in caplog.records if record.name.startswith("runner")]
