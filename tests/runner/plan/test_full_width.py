"""FLUX blocks at their full width: what was predicted is what is held, and no placement changes a pixel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import make_flux
from large import make_transformer
from lora_files import write_kohya_flux, write_lora
from project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

# few tokens: it is memory that counts here, and not every CPU is quick in bfloat16
MANIFEST = """
version = 1
name = "wide"
[model]
source = "./model"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 16
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
[stage.with]
steps = 1
height = 64
width = 64
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
prompt = "a red circle"
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A transformer of 2 double and 2 single blocks, 2 GB; what feeds it is small and fits its width."""
    project = Project(tmp_path_factory.mktemp("wide"))
    model = make_flux(project.folder / "model", text=(768, 4096))
    shutil.rmtree(model / "transformer")
    make_transformer(model / "transformer", double=2, single=2)
    project.write("wide.toml", MANIFEST)
    yield project
    shutil.rmtree(project.folder)


PLACEMENTS = {
    "resident": ["budget.ram=6GiB"],
    "stream": ["budget.ram=2GiB"],
    "device-map": ["budget.ram=2GiB", "stage.diffuse.placement=device-map"],
    "own device map": [
        "budget.ram=3GiB",
        'stage.diffuse.device_map={"single_transformer_blocks"="disk"}',
    ],
}


def test_peaks_are_as_predicted_and_pixels_the_same_in_every_placement(wide: Project) -> None:
    pixels = []
    for name, settings in PLACEMENTS.items():
        sets = [word for setting in settings for word in ("--set", setting)]
        outcome = wide.runner("run", "wide.toml", "--json", "--fresh", "diffuse", *sets)
        assert outcome.code == 0, outcome
        placements = {e["stage"]: e["placement"] for e in outcome.of("stage_started")}
        assert placements["diffuse"] == ("device-map" if name == "own device map" else name)
        for stage in outcome.of("stage_finished"):
            measured, predicted = stage["measured"]["ram"], stage["predicted"]["ram"]
            assert 0.97 * measured < predicted < 1.1 * measured, (name, stage)
        pixels.append(wide.outputs("wide"))
    assert all(made == pixels[0] for made in pixels)


def test_peaks_with_adapters_are_as_predicted(wide: Project) -> None:
    model = wide.folder / "model"
    every = ("to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out", "net.0.proj", "net.2")
    write_lora(
        wide.folder / "style.safetensors", model, {"transformer": every}, rank=64, dtype=torch.bfloat16
    )
    write_kohya_flux(wide.folder / "anna.safetensors", model, rank=32)
    loras = [f'[[lora]]\nsource = "./{name}.safetensors"\n' for name in ("style", "anna")]
    wide.write("adapted.toml", MANIFEST + "".join(loras))
    size = ["--set", "stage.diffuse.with.height=256", "--set", "stage.diffuse.with.width=256"]
    pixels = []
    for name, settings in PLACEMENTS.items():
        sets = [word for setting in settings for word in ("--set", setting)]
        outcome = wide.runner("run", "adapted.toml", "--json", "--fresh", "diffuse", *sets, *size)
        assert outcome.code == 0, outcome
        (stage,) = [one for one in outcome.of("stage_finished") if one["stage"] == "diffuse"]
        measured, predicted = stage["measured"]["ram"], stage["predicted"]["ram"]
        assert 0.97 * measured < predicted < 1.12 * measured, (name, stage)
        pixels.append(wide.outputs("wide"))
    assert all(made == pixels[0] for made in pixels)
