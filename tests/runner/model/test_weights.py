"""Single files of weights in manifests: what they are part of, and what is wrong with them."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import gguf
import pytest
import torch
from checkpoints import DEMO
from single_files import scaled_fp8, weights_of, write, write_gguf
from small_flux import components, diffuse, refused, write_small

from runner.model import quantised

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return weights_of(DEMO / "transformer")


@pytest.fixture
def small(project: Project) -> Callable[..., Project]:
    return partial(write_small, project)


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


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("some.safetensors", b"GGUF\x03\0\0\0", "it is a GGUF file: rename it"),
        ("some.safetensors", b"PK\x03\x04\0\0\x08\x08", "it is pickled, and can run code"),
        ("some.safetensors", b"\x80\x02}q\0X\x01\0", "it is pickled, and can run code"),
        ("some.gguf", b"GGUF\0\0\0\x03", "its numbers are big-endian"),
        ("some.gguf", b"GGUF\x01\0\0\0", "its version of GGUF is 1, and versions 2 and 3 are read"),
    ],
)
def test_files_of_other_formats_are_not_called_damaged(
    small: Callable[..., Project], name: str, start: bytes, words: str
) -> None:
    project = small(f"./{name}")
    (project.folder / name).write_bytes(start + bytes(100))
    refused(project, 8, "small.toml:6:15", f"{name} cannot be loaded: {words}")


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
