"""Single files of weights and ``quantize`` in manifests: what they are part of, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from math import prod
from typing import TYPE_CHECKING, Any

import gguf
import pytest
import torch
from checkpoints import DEMO
from safetensors import safe_open
from safetensors.torch import save_file
from single_files import scaled_fp8, weights_of, write, write_gguf

from runner.api import Component
from runner.files.header import TensorInfo
from runner.model import quantised
from runner.model.layouts import layout_of
from runner.model.shapes import ComponentShapes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Outcome, Project

MANIFEST = """\
version = 1
name = "small"
[model]
source = "plugin:flux/demo"
[model.components]
{parts}
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 16
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
{diffuse}
[stage.with]
steps = 2
height = 64
width = 64
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
prompt = "a red circle"
seed = 1
"""


TRANSFORMER = Component("transformer", "diffusers:FluxTransformer2DModel")


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return weights_of(DEMO / "transformer")


@pytest.fixture
def small(project: Project) -> Callable[..., Project]:
    def written(transformer: str = "", diffuse: str = "") -> Project:
        parts = f'transformer = "{transformer}"' if transformer else ""
        project.write("small.toml", MANIFEST.format(parts=parts, diffuse=diffuse))
        return project

    return written


def diffuse(outcome: Outcome) -> dict[str, Any]:
    """The stage ``diffuse`` of a plan."""
    assert outcome.code == 0, outcome
    (stage,) = (stage for stage in json.loads(outcome.stdout)["stages"] if stage["stage"] == "diffuse")
    found: dict[str, Any] = stage
    return found


def components(outcome: Outcome) -> dict[str, Any]:
    """The components of the plan's stage ``diffuse``, by name."""
    return {component["name"]: component for component in diffuse(outcome)["components"]}


def test_a_file_is_planned_run_and_reproduced(small: Callable[..., Project], weights: dict[str, Any]) -> None:
    project = small("./some.gguf")
    write_gguf(project.folder / "some.gguf", weights, "Q8_0")
    (planned,) = components(project.invoke("plan", "small.toml", "--json")).values()
    assert planned["quantisation"] == "gguf Q8_0"
    assert planned["bytes"] < planned["saving"]["plain"] == 2 * planned["parameters"]
    assert project.runner("run", "small.toml").code == 0
    (name,) = project.outputs("small")
    shutil.copy(project.folder / "runs/small/outputs" / name, project.folder / "kept.png")
    again = project.runner("reproduce", "kept.png")
    assert "made again, bit for bit" in again.stderr, again

    # its name is of no concern, its content is
    (project.folder / "some.gguf").rename(project.folder / "other.gguf")
    small("./other.gguf")
    assert [*project.runner("run", "small.toml", "--json").of("stage_started")] == []
    write_gguf(project.folder / "other.gguf", weights, "Q4_0")
    changed = project.runner("run", "small.toml", "--json").of("stage_started")
    assert [event["stage"] for event in changed] == ["diffuse", "decode"]


@pytest.mark.parametrize("placement", ["resident", "stream"])
def test_the_plan_says_how_much_lower_the_peak_is(
    small: Callable[..., Project], weights: dict[str, Any], placement: str
) -> None:
    asked = ("plan", "small.toml", "--json", "--set", "stage.diffuse.dtype=float32")
    lines = f'placement = "{placement}"'
    project = small(diffuse=lines)
    write_gguf(project.folder / "some.gguf", weights, "Q8_0")
    plain = diffuse(project.invoke(*asked))["predicted"]["ram"]
    small("./some.gguf", lines)
    quantised = diffuse(project.invoke(*asked))
    assert quantised["components"][0]["saving"]["peak"] == plain - quantised["predicted"]["ram"] > 0


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


def refused(project: Project, code: int, *words: str) -> None:
    """The plan is refused at a position of the manifest, with these words."""
    outcome = project.invoke("plan", "small.toml")
    assert outcome.code == code, outcome
    assert outcome.stderr.startswith("small.toml:"), outcome
    for word in words:
        assert word in outcome.stderr, outcome


def test_a_file_that_is_not_there(small: Callable[..., Project], weights: dict[str, Any]) -> None:
    project = small("./some.gguf")
    write_gguf(project.folder / "same.gguf", weights, "Q8_0")
    refused(project, 8, "small.toml:6:15", "there is no file", "did you mean 'same.gguf'?")


def test_a_file_of_another_model(small: Callable[..., Project], weights: dict[str, Any]) -> None:
    project = small("./some.safetensors")
    name = "transformer_blocks.0.ff.net.2.weight"
    write(project.folder / "some.safetensors", {**weights, name: weights[name][:, 1:]})
    refused(project, 8, "its tensors hold a weight of another shape", name)
    write(project.folder / "some.safetensors", {**weights, "more.weight": weights[name]})
    refused(project, 8, "hold a weight that FluxTransformer2DModel does not take (more.weight)")
    write(project.folder / "some.safetensors", {n: w for n, w in weights.items() if n != name})
    refused(project, 8, f"lack a weight of FluxTransformer2DModel ({name})")
    write(project.folder / "some.safetensors", {"some.weight": weights[name]})
    refused(project, 8, "are not those of a FluxTransformer2DModel, in no layout that diffusers converts")


@pytest.mark.parametrize("name", ["some.gguf", "some.safetensors"])
def test_a_file_that_is_cut_off(small: Callable[..., Project], weights: dict[str, Any], name: str) -> None:
    project = small(f"./{name}")
    file = project.folder / name
    write_gguf(file, weights, "Q8_0") if name.endswith("gguf") else write(file, weights)
    file.write_bytes(file.read_bytes()[:-100])
    refused(project, 8, f"{name} is damaged: it is cut off", "small.toml:6:15")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float8_e8m0fnu"])
def test_numbers_that_no_layer_computes_with(
    small: Callable[..., Project], weights: dict[str, Any], dtype: str
) -> None:
    """diffusers would load them, and the first layer would fail."""
    project = small("./some.safetensors")
    name = "proj_out.weight"
    odd = {**weights, name: weights[name].abs().to(getattr(torch, dtype))}
    write(project.folder / "some.safetensors", odd)
    words = ("hold a weight in a dtype that FluxTransformer2DModel cannot compute with", name, "another tool")
    refused(project, 8, *words)

    small("./folder")
    shutil.copytree(DEMO / "transformer", project.folder / "folder")
    (file,) = (project.folder / "folder").glob("*.safetensors")
    write(file, odd)
    refused(project, 8, f"the files hold {name} as ", "another tool")


def test_what_is_quantised_outside_of_linear_layers(
    small: Callable[..., Project], weights: dict[str, Any]
) -> None:
    project = small("./some.gguf")
    name = next(name for name, weight in weights.items() if weight.ndim == 1 and len(weight) % 32 == 0)
    writer = gguf.GGUFWriter(str(project.folder / "some.gguf"), "flux")
    for key, weight in weights.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if key == name else gguf.GGMLQuantizationType.F32
        writer.add_tensor(key, gguf.quants.quantize(weight.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(project, 8, f"it holds '{name}' as Q8_0", "matrices of linear layers alone")


def test_scales_that_are_not_read(small: Callable[..., Project], weights: dict[str, Any]) -> None:
    project = small("./some.safetensors")
    scaled = scaled_fp8(weights)
    name = "proj_out.scale_weight"
    write(project.folder / "some.safetensors", {**scaled, name: scaled[name].expand(3)})
    refused(project, 8, f"'{name}' (F32, 3) is the scale of 'proj_out.weight'", "or as GGUF")
    without = {n: w for n, w in scaled.items() if n != "proj_out.weight"}
    write(project.folder / "some.safetensors", without)
    refused(project, 8, f"it holds '{name}' and no 'proj_out.weight'")


def test_weights_of_a_tool_that_is_not_read(small: Callable[..., Project], weights: dict[str, Any]) -> None:
    project = small("./some.safetensors")
    name = "proj_out.weight.absmax"
    write(project.folder / "some.safetensors", {**weights, name: weights["proj_out.bias"]})
    refused(project, 8, f"some.safetensors: it holds {name}", "(bitsandbytes), which runner does not read")


@pytest.mark.parametrize("package", ["gguf", "torchao"])
def test_what_reads_them_is_not_installed(
    small: Callable[..., Project], weights: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = small("./some.gguf") if package == "gguf" else small(diffuse='quantize = "int8"')
    write_gguf(project.folder / "some.gguf", weights, "Q8_0")
    monkeypatch.setattr(quantised, "find_spec", lambda _name: None)
    refused(project, 4, f"{package} is not installed: pip install 'stage-runner[{package}]'")


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


def test_what_is_quantised_is_not_quantised_again(
    small: Callable[..., Project], weights: dict[str, Any]
) -> None:
    project = small("./some.gguf", 'quantize = "int8"')
    write_gguf(project.folder / "some.gguf", weights, "Q8_0")
    refused(project, 8, "small.toml:19:12", "is quantised already (gguf Q8_0): leave it out of `quantize`")


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
