"""Folders with the same weights in several layouts, through the command: planned and hashed once."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO, make_flux
from safetensors.torch import load_file, save_file

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
