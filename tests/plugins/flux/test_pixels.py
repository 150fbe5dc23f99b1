"""Pixels equal those of diffusers' FluxPipeline in one process, to the bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from bitsandbytes_weights import config_of, load_quantised, write_quantised
from checkpoints import DEMO, make_flux, weight_names
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

MANIFEST = """
version = 1
name = "pixels"
[model]
source = "{source}"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
dtype = "{dtype}"
[stage.with]
max_sequence_length = 32
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "{dtype}"
[[stage]]
name = "decode"
uses = "flux.decode"
dtype = "{dtype}"
"""

# sizes and steps differ within the batch
ITEMS: list[dict[str, Any]] = [
    {
        "id": "wide",
        "prompt": "a red circle",
        "seed": 1,
        "steps": 3,
        "height": 64,
        "width": 96,
        "guidance_scale": 2.0,
    },
    {
        "id": "tall",
        "prompt": "a blue star",
        "seed": 2**64 - 1,
        "steps": 2,
        "height": 96,
        "width": 48,
        "prompt_2": "a green square on white",
        "max_sequence_length": 48,
    },
    {
        "id": "cfg",
        "prompt": "a yellow heart",
        "seed": 3,
        "steps": 2,
        "height": 64,
        "width": 64,
        "negative_prompt": "black",
        "true_cfg_scale": 2.5,
    },
    {
        "id": "tiles",
        "prompt": "a purple square",
        "seed": 2**63,
        "steps": 1,
        "height": 160,
        "width": 144,
        "tiling": 128,
    },
]


def one_process(source: Path, dtype: torch.dtype, **components: Any) -> FluxPipeline:
    """FluxPipeline on cloned parameters (mapped ones lie at other boundaries)."""
    pipeline = FluxPipeline.from_pretrained(source, torch_dtype=dtype, **components)
    for name in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        module = getattr(pipeline, name)
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def reference(pipeline: FluxPipeline, item: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The pipeline's picture; an item in tiles is its last, as it stays set to them."""
    if tile := item.get("tiling"):
        pipeline.vae.enable_tiling()
        pipeline.vae.tile_sample_min_size = tile
        pipeline.vae.tile_latent_min_size = tile // 8
    picture = pipeline(
        prompt=item["prompt"],
        prompt_2=item.get("prompt_2"),
        negative_prompt=item.get("negative_prompt"),
        true_cfg_scale=item.get("true_cfg_scale", 1.0),
        guidance_scale=item.get("guidance_scale", 3.5),
        num_inference_steps=item["steps"],
        height=item["height"],
        width=item["width"],
        max_sequence_length=item.get("max_sequence_length", 32),
        generator=torch.Generator().manual_seed(item["seed"]),
    ).images[0]
    return np.asarray(picture)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "demo": DEMO,
        "dev": make_flux(folder / "dev"),
        "schnell": make_flux(
            folder / "schnell",
            seed=1,
            dev=False,
            width=96,
            layers=(1, 2),
            text=(64, 32),
            vae_channels=(8, 16, 16, 8),
        ),
    }


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# every checkpoint, every dtype; the demo model, whose weights are trained, in both
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("demo", "float32"), ("demo", "bfloat16"), ("dev", "bfloat16"), ("schnell", "float32")],
)
def test_pixels_are_those_of_one_process(
    project: Project, checkpoints: dict[str, Path], name: str, dtype: str
) -> None:
    source = checkpoints[name]
    project.write(
        "pixels.toml", MANIFEST.format(source=source, dtype=dtype) + '[batch]\nfile = "items.jsonl"\n'
    )
    project.write("items.jsonl", "\n".join(map(json.dumps, ITEMS)))

    outcome = project.runner("run", "pixels.toml")

    assert outcome.code == 0, outcome
    compare(project, one_process(source, getattr(torch, dtype)))


@pytest.mark.parametrize("form", ["nf4 double", "LLM.int8"])
def test_pixels_of_weights_that_bitsandbytes_has_quantised(project: Project, form: str) -> None:
    """They stream, and all items run in lockstep."""
    half, cls = torch.bfloat16, FluxTransformer2DModel
    folder = write_quantised(DEMO / "transformer", project.folder / "quantised", cls, config_of(form), half)
    text = MANIFEST.format(source="plugin:flux/demo", dtype="bfloat16")
    text = text.replace("[budget]", '[model.components]\ntransformer = "./quantised"\n[budget]')
    text = text.replace('"flux.diffuse"', '"flux.diffuse"\nplacement = "stream"')
    project.write("pixels.toml", f'{text}[batch]\nfile = "items.jsonl"\n')
    project.write("items.jsonl", "\n".join(map(json.dumps, ITEMS)))

    outcome = project.runner("run", "pixels.toml", "--json")

    assert outcome.code == 0, outcome
    (streamed,) = [event["streamed"] for event in outcome.of("stage_finished") if event["streamed"]]
    planned = project.invoke("plan", "pixels.toml", "--json")
    (stage,) = (stage for stage in json.loads(planned.stdout)["stages"] if stage["stage"] == "diffuse")
    (read,) = (component["read"] for component in stage["components"] if component["read"])
    # the item with guidance has two passes a step
    assert 4 * read <= streamed["read"] < 5 * read
    compare(project, one_process(DEMO, half, transformer=load_quantised(folder, cls, half)))


def compare(project: Project, pipeline: FluxPipeline) -> None:
    """All items' pictures are those of one process."""
    for item in ITEMS:
        (path,) = (project.folder / "runs/pixels/outputs").glob(f"{item['id']}-*.png")
        with Image.open(path) as picture:
            assert picture.size == (item["width"], item["height"])
            expected = reference(pipeline, item)
            assert np.array_equal(np.asarray(picture), expected), f"{item['id']}: other pixels"
            assert expected.std() > 0


def test_the_random_checkpoints_are_laid_out_as_published(checkpoints: dict[str, Path]) -> None:
    for name in ("dev", "schnell"):
        folder = checkpoints[name]
        assert all(n.startswith("text_model.") for n in weight_names(folder / "text_encoder"))
        assert "encoder.embed_tokens.weight" not in weight_names(folder / "text_encoder_2")
        assert len(list((folder / "text_encoder_2").glob("*.safetensors"))) > 1
        assert len(list((folder / "transformer").glob("*.safetensors"))) > 1


def test_a_picture_knows_what_it_was_made_from(project: Project, checkpoints: dict[str, Path]) -> None:
    project.write("pixels.toml", MANIFEST.format(source=checkpoints["dev"], dtype="float32"))
    options = "".join(f"{k} = {json.dumps(v)}\n" for k, v in ITEMS[0].items())
    project.write("pixels.toml", (project.folder / "pixels.toml").read_text() + f"[[item]]\n{options}")
    assert project.runner("run", "pixels.toml").code == 0
    (path,) = (project.folder / "runs/pixels/outputs").glob("*.png")
    with Image.open(path) as picture:
        texts = dict(picture.text)  # type: ignore[attr-defined]
    assert path.stem.endswith(texts["runner-key"][:8])
    parameters = json.loads(texts["parameters"])
    assert {k: parameters[k] for k in ("prompt", "seed", "steps", "width")} == {
        "prompt": "a red circle",
        "seed": 1,
        "steps": 3,
        "width": 96,
    }
    reported = json.loads(texts["runner"])
    assert set(reported["lineage"]) == {"encode", "diffuse", "decode"}
    assert "torch" in reported["versions"]
