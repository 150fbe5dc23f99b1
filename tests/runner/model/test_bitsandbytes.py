"""Folders of weights that bitsandbytes has quantised: what a plan says of them, and which it refuses."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
from bitsandbytes_weights import FILE, config_of, write_quantised
from checkpoints import DEMO
from hub import Hub, Repository
from safetensors.torch import load_file, save_file
from small_flux import diffuse, refused, write_small

from runner.model import quantised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from project import Project

LAYER = "transformer_blocks.0.attn.to_q"
WEIGHT = f"{LAYER}.weight"
STATE = f"{WEIGHT}.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The demo's transformer in NF4 with quantised scales, and in LLM.int8."""
    made = tmp_path_factory.mktemp("quantised")
    cls = diffusers.FluxTransformer2DModel
    return {
        form: write_quantised(DEMO / "transformer", made / form, cls, config_of(form), torch.bfloat16)
        for form in ("nf4 double", "LLM.int8")
    }


@pytest.fixture
def small(project: Project, folders: Mapping[str, Path]) -> Callable[[str], Project]:
    def made(form: str) -> Project:
        write_small(project, "./quantised", 'placement = "stream"')
        shutil.copytree(folders[form], project.folder / "quantised")
        return project

    return made


def rewrite(project: Project, **changes: torch.Tensor | None) -> None:
    """Write the weights anew with other tensors; None removes one. Names have ``__`` for dots."""
    file = project.folder / "quantised" / FILE
    tensors = load_file(file)
    for name, tensor in changes.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, file)


def reconfigure(project: Project, **changes: Any) -> None:
    file = project.folder / "quantised/config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] |= changes
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(("form", "scheme"), [("nf4 double", "nf4"), ("LLM.int8", "LLM.int8")])
def test_a_folder_is_planned_run_and_reproduced(
    small: Callable[[str], Project], form: str, scheme: str
) -> None:
    project = small(form)
    stage = diffuse(project.invoke("plan", "small.toml", "--json"))
    (planned,) = stage["components"]
    plain = sum(weight.numel() for weight in load_file(DEMO / "transformer" / FILE).values())
    assert planned["quantisation"] == f"bitsandbytes {scheme}"
    assert planned["parameters"] == plain
    assert planned["saving"]["quantised"] == planned["bytes"] < planned["saving"]["plain"] == 2 * plain
    run = project.runner("run", "small.toml", "--json")
    assert run.code == 0, run
    (read,) = (event["streamed"]["read"] for event in run.of("stage_finished") if event["streamed"])
    assert read >= 2 * planned["read"]
    (name,) = project.outputs("small")
    shutil.copy(project.folder / "runs/small/outputs" / name, project.folder / "kept.png")
    again = project.runner("reproduce", "kept.png")
    assert "made again, bit for bit" in again.stderr, again


def said(**changes: Any) -> torch.Tensor:
    table = {
        "quant_type": "nf4",
        "blocksize": 64,
        "dtype": "bfloat16",
        "shape": [128, 128],
        "nested_blocksize": 256,
        "nested_dtype": "float32",
        "nested_offset": 0.05,
    }
    return bytes_of(json.dumps(table | changes).encode())


def bytes_of(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


DAMAGED: Mapping[str, tuple[str, torch.Tensor | None, str]] = {
    "no state": (STATE, None, "and no quantised weight that this is of"),
    "no scales": (f"{WEIGHT}.absmax", None, f"it has no '{WEIGHT}.absmax'"),
    "no table": (f"{WEIGHT}.quant_map", None, f"it has no '{WEIGHT}.quant_map'"),
    "no table of scales": (f"{WEIGHT}.nested_quant_map", None, f"it has no '{WEIGHT}.nested_quant_map'"),
    "no scales of scales": (f"{WEIGHT}.nested_absmax", None, f"'{STATE}' has ['blocksize', "),
    "a short table": (f"{WEIGHT}.nested_quant_map", torch.zeros(255), "F32, 255, and should be 256 numbers"),
    "few scales": (f"{WEIGHT}.absmax", torch.zeros(9, dtype=torch.uint8), "U8, 9, and should be"),
    "half scales": (f"{WEIGHT}.nested_absmax", torch.zeros(1).half(), "F16, 1, and should be F32"),
    "a short weight": (WEIGHT, torch.zeros(9, 1, dtype=torch.uint8), "U8, 9 x 1, and should be"),
    "a weight on its side": (WEIGHT, torch.zeros(1, 9, dtype=torch.uint8), "and should be one column"),
    "a state that is cut off": (STATE, said()[:-9], "is damaged: it is no JSON table"),
    "a state that is no table": (STATE, bytes_of(b"[" * 4000), "is damaged: it is no JSON table"),
    "another type": (STATE, said(quant_type="fp4"), '"quant_type": "fp4"'),
    "another dtype": (STATE, said(dtype="__init__"), '"dtype": "__init__"'),
    "odd groups": (STATE, said(blocksize=63), '"blocksize": 63'),
    "groups of scales": (STATE, said(nested_blocksize=64), '"nested_blocksize": 64'),
    "a shape of words": (STATE, said(shape=["128", 128]), '"shape": ["128", 128]'),
    "odd rows": (STATE, said(shape=[128, 127]), '"shape": [128, 127]'),
    "a huge shape": (STATE, said(shape=[1 << 40, 1 << 40]), "which is not read"),
    "an endless offset": (STATE, said(nested_offset=float("inf")), '"nested_offset": Infinity'),
    "more in a state": (STATE, said(module="os"), "'module'"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_weights_that_are_damaged_or_hostile(small: Callable[[str], Project], damage: str) -> None:
    project = small("nf4 double")
    name, tensor, words = DAMAGED[damage]
    rewrite(project, **{name: tensor})
    refused(project, 8, "component 'transformer': the files are quantised (bitsandbytes), and", words)


INT8_DAMAGED: Mapping[str, tuple[str, torch.Tensor | None, str]] = {
    "no weight": (WEIGHT, None, f"it has no '{WEIGHT}'"),
    "half scales": (f"{LAYER}.SCB", torch.zeros(128).half(), "F16, 128, and should be F32"),
    "few scales": (f"{LAYER}.SCB", torch.zeros(12), "one a row"),
    "no bytes": (WEIGHT, torch.zeros(128, 128), "F32, 128 x 128, and should be I8"),
    "other layout": (
        f"{LAYER}.weight_format",
        torch.tensor(2, dtype=torch.uint8),
        "only weights in rows (0)",
    ),
}


@pytest.mark.parametrize("damage", INT8_DAMAGED)
def test_weights_in_int8_that_are_damaged(small: Callable[[str], Project], damage: str) -> None:
    project = small("LLM.int8")
    name, tensor, words = INT8_DAMAGED[damage]
    rewrite(project, **{name: tensor})
    refused(project, 8, "the files are quantised (bitsandbytes), and", words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bnb_4bit_compute_dtype": "__init__"}, "bnb_4bit_compute_dtype = '__init__', which is not read"),
        ({"bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type = 'int4', which is not read"),
        ({"bnb_4bit_quant_type": "fp4"}, "and its quantization_config says fp4"),
        ({"bnb_4bit_quant_storage": "bfloat16"}, "bnb_4bit_quant_storage = 'bfloat16', which is not read"),
        ({"load_in_8bit": True}, "must say either load_in_4bit or load_in_8bit"),
        ({"load_in_4bit": "yes"}, "load_in_4bit = 'yes'"),
        ({"llm_int8_skip_modules": "proj_out"}, "llm_int8_skip_modules = 'proj_out'"),
        ({"llm_int8_has_fp16_weight": True}, "llm_int8_has_fp16_weight = True"),
        ({"hook": "os.system"}, "has 'hook', which runner does not know"),
    ],
)
def test_configs_that_are_not_read(
    small: Callable[[str], Project], changes: Mapping[str, Any], words: str
) -> None:
    project = small("nf4 double")
    reconfigure(project, **changes)
    refused(project, 8, "the files are quantised (bitsandbytes), and", words)


def test_a_threshold_that_is_no_number(small: Callable[[str], Project]) -> None:
    project = small("LLM.int8")
    reconfigure(project, llm_int8_threshold="6")
    refused(project, 8, "llm_int8_threshold = '6', which is not read")


def test_layers_that_config_and_files_disagree_about(small: Callable[[str], Project]) -> None:
    project = small("nf4 double")
    reconfigure(project, llm_int8_skip_modules=["proj_out"])
    refused(project, 8, "the weight of 'proj_out' is quantised in its files, and its config says it is not")
    reconfigure(project, llm_int8_skip_modules=None)
    plain = load_file(DEMO / "transformer" / FILE)["proj_out.weight"]
    parts = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4")
    rewrite(project, **{"proj_out.weight": plain}, **{f"proj_out.weight.{part}": None for part in parts})
    refused(project, 8, "the weight of 'proj_out' is not quantised in its files, and its config says it is")


def test_a_matrix_on_its_side(small: Callable[[str], Project]) -> None:
    """As many numbers as the class has, in rows of another length."""
    project = small("nf4 double")
    file = project.folder / "quantised" / FILE
    name = "transformer_blocks.0.ff.net.2.weight.quant_state.bitsandbytes__nf4"
    table = json.loads(bytes(load_file(file)[name].tolist()))
    rewrite(project, **{name: bytes_of(json.dumps(table | {"shape": table["shape"][::-1]}).encode())})
    refused(project, 8, "hold a weight of another shape", "transformer_blocks.0.ff.net.2.weight")


def test_a_weight_in_two_files(small: Callable[[str], Project]) -> None:
    project = small("nf4 double")
    folder = project.folder / "quantised"
    tensors = load_file(folder / FILE)
    apart = {f"{WEIGHT}.nested_absmax": tensors.pop(f"{WEIGHT}.nested_absmax")}
    stem = FILE.removesuffix(".safetensors")
    index: dict[str, str] = {}
    for number, shard in enumerate((tensors, apart), 1):
        name = f"{stem}-0000{number}-of-00002.safetensors"
        save_file(shard, folder / name)
        index |= dict.fromkeys(shard, name)
    (folder / FILE).unlink()
    (folder / f"{FILE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    refused(project, 8, f"the tensors of '{WEIGHT}' are in several files, which diffusers does not read")


def test_a_folder_on_the_hub(small: Callable[[str], Project]) -> None:
    """The sides of weights are known by their numbers; what texts say, when they are here."""
    project = small("nf4 double")
    here = diffuse(project.invoke("plan", "small.toml", "--json"))["components"][0]
    right = Repository.of(project.folder / "quantised")
    rewrite(project, **{STATE: said(dtype="__init__")})
    hostile = Repository.of(project.folder / "quantised")
    rewrite(project, **{STATE: said(), f"{WEIGHT}.absmax": None})
    lacking = Repository.of(project.folder / "quantised")
    text = (project.folder / "small.toml").read_text()
    with Hub({"lab/right": right, "lab/hostile": hostile, "lab/lacking": lacking}).served() as hub:
        project.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}

        def named(name: str) -> None:
            project.write("small.toml", text.replace("./quantised", f"lab/{name}"))

        named("right")
        planned = diffuse(project.runner("plan", "small.toml", "--json"))["components"][0]
        same = ("quantisation", "parameters", "bytes", "loaded", "read")
        assert {key: planned[key] for key in same} == {key: here[key] for key in same}
        named("lacking")
        outcome = project.runner("plan", "small.toml")
        assert outcome.code == 8, outcome
        assert f"it has no '{WEIGHT}.absmax'" in outcome.stderr
        named("hostile")
        project.runner("fetch", "small.toml")
        outcome = project.runner("plan", "small.toml")
        assert outcome.code == 8, outcome
        assert '"dtype": "__init__"' in outcome.stderr


def test_what_is_quantised_is_not_quantised_again(small: Callable[[str], Project]) -> None:
    project = small("nf4 double")
    text = (project.folder / "small.toml").read_text()
    quantize = text.replace('placement = "stream"', 'quantize = "int8"')
    project.write("small.toml", quantize)
    refused(project, 8, "is quantised already (bitsandbytes nf4): leave it out of `quantize`")
    rewrite(project, **{f"{WEIGHT}.quant_map": None})
    refused(project, 8, "the files are quantised (bitsandbytes), and", f"it has no '{WEIGHT}.quant_map'")
    reconfigure(project, quant_method="gptq")
    refused(project, 8, "the files are quantised (gptq), which runner does not read")


def test_it_is_not_installed(small: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    project = small("nf4 double")
    monkeypatch.setattr(quantised, "find_spec", lambda _name: None)
    refused(project, 4, "bitsandbytes is not installed: pip install 'stage-runner[bitsandbytes]'")


def test_weights_of_a_folder_whose_config_does_not_say_so(small: Callable[[str], Project]) -> None:
    project = small("nf4 double")
    file = project.folder / "quantised/config.json"
    config = json.loads(file.read_text())
    del config["quantization_config"]
    file.write_text(json.dumps(config))
    refused(project, 8, "(bitsandbytes)", "and its config.json has no quantization_config")
