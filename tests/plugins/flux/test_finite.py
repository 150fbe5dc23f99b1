"""A VAE that overflows, or holds NaN, makes no picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from checkpoints import make_flux
from safetensors.torch import load_file, save_file
from short_flux import short_flux

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

MANIFEST = short_flux("finite", "./model", 32)


def spoil(model: Path, weight: str, factor: float) -> None:
    file = model / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights[weight] = weights[weight] * factor
    save_file(weights, file, {"format": "pt"})


def test_a_vae_that_overflows_makes_no_picture(project: Project) -> None:
    model = make_flux(project.folder / "model")
    project.write("finite.toml", MANIFEST)
    spoil(model, "decoder.conv_in.weight", 1e6)

    half = project.runner("run", "finite.toml", "--set", "stage.decode.dtype=float16")

    assert half.code == 1, half
    assert "'image' would be made of NaN or infinite values, computed in float16" in half.stderr
    assert 'set dtype = "float32" or "bfloat16"' in half.stderr
    assert project.runner("run", "finite.toml", "--set", "stage.decode.dtype=bfloat16").code == 0
    assert len(project.outputs("finite")) == 1

    spoil(model, "decoder.conv_out.weight", torch.nan)
    outcome = project.runner("run", "finite.toml", "--json")
    assert outcome.code == 1, outcome
    (failed,) = [e["error"] for e in outcome.of("item_finished") if e["stage"] == "decode"]
    assert "weights are damaged" in failed
    assert len(project.outputs("finite")) == 1


def test_latents_that_are_not_finite_end_their_item_at_the_first_step(project: Project) -> None:
    model = make_flux(project.folder / "model")
    file = next(f for f in (model / "transformer").glob("*.safetensors") if "proj_out.bias" in load_file(f))
    weights = load_file(file)
    save_file({**weights, "proj_out.bias": weights["proj_out.bias"] * torch.nan}, file, {"format": "pt"})
    project.write("finite.toml", MANIFEST)

    outcome = project.runner("run", "finite.toml", "--json", "--set", "stage.diffuse.with.steps=9")

    assert outcome.code == 1, outcome
    assert "'latents' would be made of NaN" in outcome.of("item_finished")[-1]["error"]
    assert [e["step"] for e in outcome.of("progress") if e["stage"] == "diffuse"] == []
