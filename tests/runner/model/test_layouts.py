"""Folders with the same weights in several layouts, and files whose tensors diffusers converts."""

from __future__ import annotations

import json
import shutil
from math import prod
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import DEMO, make_flux
from safetensors.torch import load_file, save_file

from runner.api import Component
from runner.files.header import TensorInfo
from runner.model.layouts import layout_of
from runner.model.shapes import ComponentShapes

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from project import Outcome, Project

MANIFEST = """
version = 1
name = "local"
[model]
source = "./model"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[[stage]]
name = "decode"
uses = "flux.decode"
[batch]
prompts = ["a"]
"""
TRANSFORMER = Component("transformer", "diffusers:FluxTransformer2DModel")
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("published") / "flux")


def sizes(planned: Outcome) -> dict[str, int]:
    assert planned.code == 0, planned
    stages = json.loads(planned.stdout)["stages"]
    return {c["name"]: c["bytes"] for stage in stages for c in stage["components"]}


def merged(folder: Path, name: str) -> None:
    """Add one whole file of the weights that lie there in shards."""
    weights: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        weights |= load_file(shard)
    save_file(weights, folder / name)


def test_a_second_layout_changes_no_plan(project: Project, published: Path) -> None:
    project.write("local.toml", MANIFEST)
    model = shutil.copytree(published, project.folder / "model")
    once = sizes(project.invoke("plan", "local.toml", "--json"))
    shutil.copy(model / VAE, model / "vae/ae.safetensors")
    shutil.copy(model / VAE, model / "vae/diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(model / "text_encoder/model.safetensors", model / "text_encoder/clip_l.safetensors")
    merged(model / "transformer", "diffusion_pytorch_model.safetensors")
    merged(model / "text_encoder_2", "model.safetensors")
    assert sizes(project.invoke("plan", "local.toml", "--json")) == once


def test_a_variant_is_planned_and_what_lacks_it_is_reported(project: Project) -> None:
    project.write("local.toml", MANIFEST)
    model = shutil.copytree(DEMO, project.folder / "model")
    plain = sizes(project.invoke("plan", "local.toml", "--json"))
    wide = {name: weight.float() for name, weight in load_file(model / VAE).items()}
    save_file(wide, model / VAE.replace(".safetensors", ".fp16.safetensors"))

    given = ["--set", "model.variant=fp16"]
    planned = sizes(project.invoke("plan", "local.toml", "--json", *given))
    assert planned["vae"] == 2 * plain["vae"]
    assert planned["transformer"] == plain["transformer"]
    reported = project.invoke("plan", "local.toml", *given)
    assert (
        "component 'transformer' has no files of variant 'fp16': its plain files are loaded"
        in reported.stdout
    )
    assert "component 'vae'" not in reported.stdout
    assert "component 'tokenizer'" not in reported.stdout
    validated = project.invoke("validate", "local.toml", *given)
    assert validated.code == 0
    assert "component 'transformer' has no files of variant" in validated.stderr

    absent = project.invoke("validate", "local.toml", "--set", "model.variant=bf16")
    assert absent.code == 8
    assert "has no files of variant 'bf16' (there are: fp16)" in absent.stderr

    (model / VAE).unlink()
    only = project.invoke("validate", "local.toml")
    assert only.code == 8
    assert "has weights only as variant 'fp16': write `variant = \"fp16\"` under `source`" in only.stderr
    assert "local.toml:4:10: " in only.stderr
    assert project.invoke("validate", "local.toml", *given).code == 0


def originals(width: int) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """The config of a FLUX transformer with one block of each kind, and its tensors with its authors' names."""
    text, pooled, head = 4096, 768, 128
    config = {"num_layers": 1, "num_single_layers": 1, "joint_attention_dim": text, "guidance_embeds": False}
    linear = {
        "img_in": (width, 64),
        "txt_in": (width, text),
        "time_in.in_layer": (width, 256),
        "time_in.out_layer": (width, width),
        "vector_in.in_layer": (width, pooled),
        "vector_in.out_layer": (width, width),
        "single_blocks.0.modulation.lin": (3 * width, width),
        "single_blocks.0.linear1": (7 * width, width),
        "single_blocks.0.linear2": (width, 5 * width),
        "final_layer.linear": (64, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    norms = ["single_blocks.0.norm"]
    for side in ("img", "txt"):
        block = f"double_blocks.0.{side}"
        norms.append(f"{block}_attn.norm")
        linear |= {
            f"{block}_mod.lin": (6 * width, width),
            f"{block}_attn.qkv": (3 * width, width),
            f"{block}_attn.proj": (width, width),
            f"{block}_mlp.0": (4 * width, width),
            f"{block}_mlp.2": (width, 4 * width),
        }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, matrix in linear.items():
        shapes |= {f"{name}.weight": matrix, f"{name}.bias": matrix[:1]}
    shapes |= {f"{name}.{part}_norm.scale": (head,) for name in norms for part in ("query", "key")}
    tensors, at = {}, 0
    for name, shape in shapes.items():
        tensors[name] = TensorInfo("BF16", shape, at, at + 2 * prod(shape))
        at += 2 * prod(shape)
    return {"_class_name": "FluxTransformer2DModel", **config}, tensors


def test_what_conversions_concatenate_alone_stays_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of FLUX's original names at their full width, diffusers concatenates each part of what it splits."""
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path))
    config, tensors = originals(3072)
    shapes = ComponentShapes(TRANSFORMER, tensors, config, ("flux.safetensors",))
    layout = layout_of(shapes)
    assert layout.computed == {"norm_out.linear.weight", "norm_out.linear.bias"}
    fused = tensors["double_blocks.0.img_attn.qkv.weight"]
    keys = layout.tensors["transformer_blocks.0.attn.to_k.weight"]
    assert keys.shape == (3072, 3072)
    assert keys.start == fused.start + (fused.end - fused.start) // 3
