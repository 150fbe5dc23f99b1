"""Whole checkpoints and text encoders in one file: the same pictures as diffusers makes, to the bit."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
import transformers
from pipeline_cases import CASES, manifest, reference
from single_files import (
    as_stable_diffusion,
    as_stable_diffusion_xl,
    products,
    scaled_fp8,
    weights_of,
    with_text_model,
    write,
)
from stages_here import equal, made, run_stages
from tiny_models import stable_diffusion
from tiny_models.texts import clip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STREAM = 'placement = "stream"\n'
WHOLE = {"sd15": as_stable_diffusion, "sdxl": as_stable_diffusion_xl}
PROMPTS = ("a red circle", "a green square above a yellow star")


@pytest.fixture(scope="module")
def wide(tiny: Callable[[str], Path]) -> Callable[[str], Path]:
    """SDXL's text encoders have different widths, by which diffusers tells them apart in a file."""

    def written(name: str) -> Path:
        folder = tiny(name)
        if name != "sdxl":
            return folder
        other = folder.with_name("sdxl_wide")
        if not other.exists():
            parts = {"text_encoder": clip(16), "unet": stable_diffusion.unet(48, xl=True)}
            pipeline = diffusers.StableDiffusionXLPipeline(**stable_diffusion.sdxl_parts() | parts)
            pipeline.save_pretrained(other)
        return other

    return written


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_checkpoint(pictures: Path, wide: Callable[[str], Path], name: str) -> None:
    """One file with UNet, VAE and text encoders; tokenizers, scheduler and configs are from a folder."""
    folder, case = wide(name), CASES[name]
    file = write(pictures / "whole.safetensors", WHOLE[name](folder))
    theirs: Any = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
    loaded = theirs.from_single_file(
        str(file), config=str(folder), torch_dtype=torch.float32, local_files_only=True
    )
    names = [n for n, part in loaded.components.items() if isinstance(part, torch.nn.Module)]
    parts = {name: getattr(loaded, name) for name in names}
    expected = [
        reference(case.but(prompt=prompt), folder, pictures, torch.float32, **parts) for prompt in PROMPTS
    ]
    source = f"source = {json.dumps(str(folder))}"
    items = [{"id": f"item-{n}", "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
    text = manifest(case, folder, "float32", items, encode=STREAM, denoise=STREAM)
    assert source in text
    hidden = [*folder.glob("*/*.safetensors")]
    for weights in hidden:
        shutil.move(weights, weights.with_suffix(".moved"))
    try:
        path = pictures / "made.toml"
        path.write_text(
            text.replace(source, f'source = "./whole.safetensors"\nconfig = {json.dumps(str(folder))}')
        )
        run_stages(path)
    finally:
        for weights in hidden:
            shutil.move(weights.with_suffix(".moved"), weights)
    assert all(map(equal, made(path).values(), expected))


@pytest.mark.parametrize("kind", ["plain", "fp8 scaled", "other of two tied"])
def test_text_encoders_in_single_files(pictures: Path, tiny: Callable[[str], Path], kind: str) -> None:
    """As they are offered for FLUX: with the names of transformers, which diffusers has no code for."""
    folder, case, dtype = tiny("flux"), CASES["flux"], torch.bfloat16
    clip_l = {with_text_model(name): weight for name, weight in weights_of(folder / "text_encoder").items()}
    beside = {
        "logit_scale": torch.tensor(4.6),
        "text_projection.weight": torch.eye(32),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    write(pictures / "clip_l.safetensors", clip_l | beside)
    stored = plain = weights_of(folder / "text_encoder_2")
    if kind == "fp8 scaled":
        stored = scaled_fp8(plain)
        plain = products(stored)
        stored["spiece_model"] = torch.zeros(8, dtype=torch.uint8)
    elif kind == "other of two tied":
        stored = {n.replace("shared", "encoder.embed_tokens"): weight for n, weight in plain.items()}
    write(pictures / "t5.safetensors", stored)
    theirs = transformers.T5EncoderModel.from_pretrained(
        None,
        config=transformers.T5Config.from_pretrained(folder / "text_encoder_2"),
        state_dict={name: weight.to(dtype) for name, weight in plain.items()},
        dtype=dtype,
    )
    expected = reference(case, folder, pictures, dtype, text_encoder_2=theirs.eval())
    parts = {"text_encoder": "./clip_l.safetensors", "text_encoder_2": "./t5.safetensors"}
    path = pictures / "made.toml"
    path.write_text(manifest(case, folder, "bfloat16", parts=parts, encode=STREAM))
    run_stages(path)
    (output,) = made(path).values()
    assert equal(output, expected)
