"""``quantize`` in manifests, and folders that were quantised so."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from single_files import weights_of, write, write_gguf
from small_flux import components, refused, write_small

from runner.files.provenance import without_provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project


@pytest.fixture
def small(project: Project) -> Callable[..., Project]:
    return partial(write_small, project)


def test_quantize_is_planned_run_once_and_reproduced(small: Callable[..., Project]) -> None:
    project = small(diffuse='quantize = "int8"')
    (planned,) = components(project.invoke("plan", "small.toml", "--json")).values()
    assert (planned["quantisation"], planned["prepared"]) == ("torchao int8", "int8")
    shown = project.invoke("plan", "small.toml").stdout
    assert "of weights rather than" in shown
    assert "pictures are not those of plain weights" in shown
    assert "quantised once, into" in shown
    first = project.runner("run", "small.toml", "--json")
    assert [e["component"] for e in first.of("prepare_progress")] == ["transformer"]
    (folder,) = (project.folder / "cache/prepared").iterdir()
    stored = sum(info.stat().st_size for info in folder.glob("*.safetensors"))
    assert planned["bytes"] < stored
    second = project.runner("run", "small.toml", "--json", "--fresh", "diffuse")
    assert not second.of("prepare_progress")
    (name,) = project.outputs("small")
    shutil.copy(project.folder / "runs/small/outputs" / name, project.folder / "kept.png")
    again = project.runner("reproduce", "kept.png")
    assert "made again, bit for bit" in again.stderr, again
    plain = project.runner("run", "small.toml", "--set", "stage.diffuse.quantize=fp8", "--json")
    assert [e["stage"] for e in plain.of("stage_started")] == ["diffuse", "decode"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ('quantize = "int9"', 3, "small.toml:19:12"),
        ('quantize = { transformr = "int8" }', 3, "did you mean 'transformer'?"),
        ('quantize = { scheduler = "int8" }', 3, "component 'scheduler' has no weights"),
        (
            'quantize = { vae = "int8" }',
            3,
            "the stage loads no component 'vae' (it loads: transformer, scheduler)",
        ),
    ],
)
def test_a_quantize_that_is_wrong(small: Callable[..., Project], line: str, code: int, words: str) -> None:
    refused(small(diffuse=line), code, words)


def test_a_component_without_layers_to_quantise(small: Callable[..., Project]) -> None:
    """One of convolutions alone, among others of the stage or by its name."""
    project = small()
    vae = AutoencoderKL.from_config(
        {**AutoencoderKL.load_config(DEMO / "vae"), "mid_block_add_attention": False}
    )
    vae.save_pretrained(project.folder / "vae")
    text = (project.folder / "small.toml").read_text()
    text = text.replace("[model.components]", '[model.components]\nvae = "./vae"')
    project.write("small.toml", f"{text}\n".replace('.decode"', '.decode"\nquantize = "int8"'))
    planned = project.invoke("plan", "small.toml", "--json")
    assert planned.code == 0, planned
    (decode,) = (stage for stage in json.loads(planned.stdout)["stages"] if stage["stage"] == "decode")
    assert [one["prepared"] for one in decode["components"]] == [None]
    project.write("small.toml", f"{text}\n".replace('.decode"', '.decode"\nquantize = { vae = "int8" }'))
    refused(project, 3, "component 'vae' has no layers that would be quantised")


def test_what_is_quantised_is_not_quantised_again(small: Callable[..., Project]) -> None:
    project = small("./some.gguf", 'quantize = "int8"')
    write_gguf(project.folder / "some.gguf", weights_of(DEMO / "transformer"), "Q8_0")
    refused(project, 8, "small.toml:19:12", "is quantised already (gguf Q8_0): leave it out of `quantize`")


def test_a_folder_in_the_cache_that_was_damaged_is_written_anew(small: Callable[..., Project]) -> None:
    project = small(diffuse='quantize = "int8"')
    assert project.runner("run", "small.toml").code == 0
    (output,) = project.outputs("small").values()
    (folder,) = (project.folder / "cache/prepared").iterdir()
    (shard,) = folder.glob("*.safetensors")
    data = shard.read_bytes()
    killed, written = folder / f".{shard.name}.host.1.tmp", folder / f".{shard.name}.host.2.tmp"
    for damage in (
        shard.unlink,
        lambda: shard.write_bytes(data[:-1]),
        (folder / "config.json").unlink,
    ):
        damage()
        for one in (killed, written):
            one.write_bytes(b"a part of it")
        os.utime(killed, (1, 1))
        again = project.runner("run", "small.toml", "--json", "--fresh", "diffuse")
        assert again.code == 0, again
        assert again.of("prepare_progress")
        assert shard.read_bytes() == data
        assert written.exists()
        assert not killed.exists()
    assert [*project.outputs("small").values()] == [output]


def prepared(small: Callable[..., Project]) -> Project:
    """A project whose transformer is a folder that has been quantised, ``./quantised``."""
    project = small(diffuse='quantize = "int8"')
    assert project.runner("run", "small.toml").code == 0
    (folder,) = (project.folder / "cache/prepared").iterdir()
    shutil.copytree(folder, project.folder / "quantised")
    return small("./quantised")


def test_a_quantised_folder(small: Callable[..., Project]) -> None:
    project = prepared(small)
    (planned,) = components(project.invoke("plan", "small.toml", "--json")).values()
    assert (planned["quantisation"], planned["prepared"]) == ("torchao int8", None)
    project.write("small.toml", (project.folder / "small.toml").read_text().replace("bfloat16", "float32"))
    refused(project, 8, "is quantised (torchao int8) for bfloat16", 'set `dtype = "bfloat16"` in the stage')

    # what the files name chooses what their library makes: nothing but the known is let through
    small("./quantised")
    config = json.loads((project.folder / "quantised/config.json").read_text())
    scheme = config["quantization_config"]["quant_type"]["default"]
    scheme["_data"]["granularity"] = {"_type": "FqnToConfig", "_data": {}}
    project.write("quantised/config.json", json.dumps(config))
    refused(project, 8, "the files are quantised (torchao), which runner does not read")


def test_a_plain_file_in_the_place_of_quantised_weights(small: Callable[..., Project]) -> None:
    """Its config is the model's, which says how those are quantised."""
    project = prepared(small)
    shutil.copytree(DEMO, project.folder / "model")
    shutil.rmtree(project.folder / "model/transformer")
    (project.folder / "quantised").rename(project.folder / "model/transformer")
    write(project.folder / "plain.safetensors", weights_of(DEMO / "transformer"))
    text = (small("./plain.safetensors").folder / "small.toml").read_text()
    (from_demo,) = pixels(project, text)
    assert pixels(project, text.replace("plugin:flux/demo", "./model")) == [from_demo]


def pixels(project: Project, text: str) -> list[bytes]:
    """The picture that a manifest makes, without its record."""
    shutil.rmtree(project.folder / "runs", ignore_errors=True)
    project.write("small.toml", text)
    outcome = project.runner("run", "small.toml")
    assert outcome.code == 0, outcome
    return [without_provenance(data) for data in project.outputs("small").values()]


def test_metadata_of_a_stranger(small: Callable[..., Project]) -> None:
    project = prepared(small)
    (file,) = (project.folder / "quantised").glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        metadata = dict(opened.metadata())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    odd = json.loads(metadata["proj_out.weight"]) | {"_type": "MXTensor"}
    save_file(tensors, file, {**metadata, "proj_out.weight": json.dumps(odd)})
    refused(project, 8, "the files are quantised (torchao), which runner does not read")


def test_fp8_weights_stay_fp8_in_the_plan(small: Callable[..., Project]) -> None:
    project = small(diffuse='quantize = "fp8"')
    (planned,) = components(project.invoke("plan", "small.toml", "--json")).values()
    assert planned["loaded"] < 1.1 * planned["parameters"]
    assert planned["saving"]["quantised"] == planned["loaded"] == planned["bytes"]
