"""Adapters (LoRA) in the FLUX stages: the pixels of FluxPipeline with the same ones, to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from checkpoints import make_flux
from diffusers import FluxPipeline
from lora_files import FLUX, TEXT, write_kohya_flux, write_lora
from PIL import Image

if TYPE_CHECKING:
    from project import Project

MANIFEST = """
version = 1
name = "styled"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
[with]
max_sequence_length = 32
steps = 2
height = 64
width = 64
[[lora]]
source = "./style.safetensors"
weight = 0.8
[[lora]]
source = "./anna.safetensors"
[[stage]]
name = "encode"
uses = "flux.encode"
dtype = "bfloat16"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
placement = "{placement}"
[[stage]]
name = "decode"
uses = "flux.decode"
dtype = "bfloat16"
[[item]]
id = "a"
prompt = "a red circle"
seed = 1
[[item]]
id = "b"
prompt = "a blue star"
seed = 2
lora_weights = {{ style = -0.5, anna = 0.25 }}
"""
WEIGHTS = {"a": (0.8, 1.0), "b": (-0.5, 0.25)}
CALLS = {"a": ("a red circle", 1), "b": ("a blue star", 2)}


@pytest.mark.parametrize("placement", ["resident", "stream"])
def test_pixels_are_those_of_one_process(project: Project, placement: str) -> None:
    model = make_flux(project.folder / "model")
    style = write_lora(
        project.folder / "style.safetensors", model, {"transformer": FLUX, "text_encoder": TEXT}
    )
    anna = write_kohya_flux(project.folder / "anna.safetensors", model)
    project.write("styled.toml", MANIFEST.format(placement=placement))

    outcome = project.runner("run", "styled.toml")

    assert outcome.code == 0, outcome
    torch.set_num_threads(1)
    pipeline = FluxPipeline.from_pretrained(model, torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    for file in (style, anna):
        pipeline.load_lora_weights(str(file), adapter_name=file.stem)
    for name in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        module = getattr(pipeline, name)
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    for item, (prompt, seed) in CALLS.items():
        pipeline.set_adapters(["style", "anna"], [*WEIGHTS[item]])
        with torch.inference_mode():
            expected = pipeline(
                prompt,
                height=64,
                width=64,
                num_inference_steps=2,
                max_sequence_length=32,
                generator=torch.Generator().manual_seed(seed),
            ).images[0]
        (path,) = (project.folder / "runs/styled/outputs").glob(f"{item}-*.png")
        with Image.open(path) as made:
            assert np.array_equal(np.asarray(made), np.asarray(expected)), item
