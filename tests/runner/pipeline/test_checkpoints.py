"""Models that are one file: the repository that has their configs, and the components that they hold."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import DEMO
from hub import Hub, Repository
from safetensors.torch import save_file
from single_files import as_stable_diffusion, as_zimage_original, weights_of, write, write_gguf
from tiny_models import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Outcome, Project

KNOWN = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""Where diffusers takes the configs of Stable Diffusion 1 from."""
FILES = "some-lab/files"
MANIFEST = """\
version = 1
name = "whole"
[model]
source = "{}"
{}
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "diffusers.encode"
[[stage]]
name = "denoise"
uses = "diffusers.denoise"
[[stage]]
name = "decode"
uses = "diffusers.decode"
[[item]]
prompt = "a red circle"
num_inference_steps = 2
height = 64
width = 64
"""

ENCODING = """\
version = 1
name = "encoded"
[model]
source = "./some.safetensors"
config = "plugin:flux/demo"
{}
[[stage]]
name = "encode"
uses = "flux.encode"
[[item]]
prompt = "a red circle"
"""


@pytest.fixture
def hub(project: Project) -> Iterator[Hub]:
    with Hub({}).served() as served:
        project.environment["HF_ENDPOINT"] = served.url
        yield served


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint("sd15", tmp_path_factory.mktemp("tiny"))


def configs_of(folder: Path) -> Repository:
    """A repository that has everything but weights."""
    whole = Repository.of(folder)
    return Repository({n: data for n, data in whole.files.items() if not n.endswith(".safetensors")})


def components(outcome: Outcome) -> dict[str, dict[str, object]]:
    assert outcome.code == 0, outcome
    return {c["name"]: c for stage in json.loads(outcome.stdout)["stages"] for c in stage["components"]}


def test_configs_are_from_where_diffusers_takes_them(project: Project, hub: Hub, model: Path) -> None:
    hub.repositories[KNOWN] = configs_of(model)
    write(project.folder / "whole.safetensors", as_stable_diffusion(model))
    project.write("whole.toml", MANIFEST.format("./whole.safetensors", ""))
    planned = components(project.runner("plan", "whole.toml", "--json"))
    assert {name: bool(one["bytes"]) for name, one in planned.items()} == dict.fromkeys(
        ("text_encoder", "unet", "vae"), True
    )
    assert project.runner("run", "whole.toml").code == 0
    (name,) = project.outputs("whole")
    again = project.runner("reproduce", f"runs/whole/outputs/{name}", "-o", "again.png")
    assert again.code == 0, again


def test_a_file_on_the_hub_is_planned_from_its_header(project: Project, hub: Hub, model: Path) -> None:
    file = write(project.folder / "whole.safetensors", as_stable_diffusion(model))
    hub.repositories[FILES] = Repository({"some/whole.safetensors": file.read_bytes()})
    file.unlink()
    project.write("whole.toml", MANIFEST.format(f"{FILES}:some/whole.safetensors", f'config = "{model}"'))
    assert set(components(project.runner("plan", "whole.toml", "--json"))) == {"text_encoder", "unet", "vae"}


def test_components_that_the_file_lacks_are_the_repositorys(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = checkpoint("zimage", tmp_path_factory.mktemp("tiny"))
    weights = as_zimage_original(weights_of(folder / "transformer"))
    write_gguf(
        project.folder / "some.gguf",
        {n.removeprefix("model.diffusion_model."): w for n, w in weights.items()},
        "Q8_0",
    )
    project.write("whole.toml", MANIFEST.format("./some.gguf", f'config = "{folder}"'))
    planned = project.runner("plan", "whole.toml", "--json")
    assert components(planned)["transformer"]["quantisation"] == "gguf Q8_0"
    assert set(components(planned)) == {"text_encoder", "transformer", "vae"}
    lacks = [
        f"component '{n}' is from {folder}: ./some.gguf does not hold it" for n in ("text_encoder", "vae")
    ]
    checked = project.invoke("validate", "whole.toml")
    assert [line for line in checked.stderr.splitlines() if line.startswith("note: ")] == [
        f"note: {line}" for line in lacks
    ]
    assert all(line in project.invoke("plan", "whole.toml").stdout for line in lacks)


@pytest.mark.parametrize(
    ("name", "ends", "root"),
    [
        ("vae", ".decoder.conv_in.weight", "first_stage_model."),
        ("vae", ".decoder.norm_out.bias", "first_stage_model."),
        ("text_encoder", ".final_layer_norm.weight", "cond_stage_model."),
    ],
)
def test_a_component_that_the_file_holds_in_part_is_not_taken_from_elsewhere(
    project: Project, model: Path, name: str, ends: str, root: str
) -> None:
    weights = as_stable_diffusion(model)
    lost = next(n for n in weights if n.startswith(root) and n.endswith(ends))
    write(project.folder / "whole.safetensors", {n: w for n, w in weights.items() if n != lost})
    project.write("whole.toml", MANIFEST.format("./whole.safetensors", f'config = "{model}"'))
    outcome = project.invoke("plan", "whole.toml")
    assert outcome.code == 8, outcome
    assert f"its tensors '{root}...' are not all that its {name} needs" in outcome.stderr
    elsewhere = f'config = "{model}"\ncomponents.{name} = "{model / name}"'
    project.write("whole.toml", MANIFEST.format("./whole.safetensors", elsewhere))
    assert project.invoke("plan", "whole.toml").code == 0


def test_configs_that_cannot_be_had_may_be_named(project: Project, hub: Hub, model: Path) -> None:
    assert KNOWN not in hub.repositories
    write(project.folder / "whole.safetensors", as_stable_diffusion(model))
    project.write("whole.toml", MANIFEST.format("./whole.safetensors", ""))
    outcome = project.runner("plan", "whole.toml")
    assert outcome.code == 8, outcome
    assert (
        f"the configs for ./whole.safetensors are those of '{KNOWN}', as diffusers knows: " in outcome.stderr
    )
    assert "; or name a folder or a hub id that has them as `config`" in outcome.stderr
    assert outcome.stderr.count("whole.toml:4:10: ") == 1


@pytest.mark.parametrize(
    ("source", "more", "code", "words"),
    [
        ("./none.safetensors", "", 8, "there is no file"),
        ("./some.safetensors", "", 8, "some.safetensors is damaged"),
        ("./some.ckpt", "", 8, "is a single file, not a model folder"),
        ("./folder", 'config = "./folder"', 3, "`config` is for a model that is one file"),
        (
            "some-lab/files:some.safetensors",
            'revision = "main"',
            3,
            'write "some-lab/files@main:some.safetensors"',
        ),
    ],
)
def test_a_file_that_is_no_model(project: Project, source: str, more: str, code: int, words: str) -> None:
    project.write("some.safetensors", b"1234567890")
    project.write("some.ckpt", b"")
    project.write("whole.toml", MANIFEST.format(source, more))
    outcome = project.invoke("plan", "whole.toml")
    assert (outcome.code, outcome.stderr.partition(": ")[0]) == (code, "whole.toml:4:10"), outcome
    assert words in outcome.stderr, outcome


@pytest.mark.parametrize("mark", ["v_pred", "edm_vpred.sigma_max", ""])
def test_a_file_for_another_prediction_than_its_scheduler(project: Project, model: Path, mark: str) -> None:
    """diffusers takes the scheduler from the repository, whatever the file says of itself."""
    weights = {name: weight.contiguous().clone() for name, weight in as_stable_diffusion(model).items()}
    marks = {mark: torch.ones(1)} if mark else {}
    metadata = {} if mark else {"modelspec.prediction_type": "v"}
    save_file(weights | marks, project.folder / "whole.safetensors", metadata)
    text = MANIFEST.format("./whole.safetensors", f'config = "{model}"')
    project.write("whole.toml", text)
    outcome = project.invoke("plan", "whole.toml")
    assert outcome.code == 0, outcome
    words = "whole.toml:4:10: component 'unet': its file says that it is for v_prediction, and the config of"
    assert f"{words} 'scheduler' says epsilon" in outcome.stderr + outcome.stdout, outcome
    own = 'scheduler = { class = "EulerDiscreteScheduler", prediction_type = "v_prediction" }\n'
    project.write("whole.toml", text + own)
    outcome = project.invoke("plan", "whole.toml")
    assert outcome.code == 0, outcome
    assert "v_prediction" not in outcome.stderr + outcome.stdout, outcome


def test_a_scheduler_whose_config_says_nothing_expects_noise(project: Project, model: Path) -> None:
    folder = shutil.copytree(model, project.folder / "model")
    config = folder / "scheduler/scheduler_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({n: value for n, value in settings.items() if n != "prediction_type"}))
    weights = {name: weight.contiguous().clone() for name, weight in as_stable_diffusion(model).items()}
    save_file(weights | {"v_pred": torch.ones(1)}, project.folder / "whole.safetensors")
    project.write("whole.toml", MANIFEST.format("./whole.safetensors", 'config = "./model"'))
    outcome = project.invoke("plan", "whole.toml")
    assert outcome.code == 0, outcome
    assert (
        "the config of 'scheduler' says nothing, which means epsilon: " in outcome.stderr + outcome.stdout
    ), outcome


def test_what_is_wrong_with_a_component_of_a_file_is_at_its_source(project: Project, model: Path) -> None:
    weights = as_stable_diffusion(model)
    name = next(n for n, w in weights.items() if n.startswith("model.diffusion_model.") and w.ndim == 2)
    write(project.folder / "whole.safetensors", {**weights, name: weights[name][:, 1:]})
    project.write("whole.toml", MANIFEST.format("./whole.safetensors", f'config = "{model}"'))
    outcome = project.invoke("plan", "whole.toml")
    assert outcome.code == 8, outcome
    assert outcome.stderr.startswith("whole.toml:4:10: component 'unet'"), outcome


def test_a_file_may_hold_what_no_stage_loads(project: Project) -> None:
    write(project.folder / "some.safetensors", weights_of(DEMO / "transformer"))
    project.write("encode.toml", ENCODING.format(""))
    assert project.invoke("validate", "encode.toml").code == 0
    project.write("encode.toml", ENCODING.format('components.vae = "plugin:flux/demo"'))
    outcome = project.invoke("validate", "encode.toml")
    assert outcome.code == 3, outcome
    assert outcome.stderr.startswith("encode.toml:6:12: no stage loads a component 'vae'"), outcome
    assert "'transformer'" not in outcome.stderr


def test_a_file_of_something_else(project: Project, model: Path) -> None:
    write(project.folder / "some.safetensors", {"a.b": weights_of(model / "vae")["quant_conv.bias"]})
    project.write("whole.toml", MANIFEST.format("./some.safetensors", f'config = "{model}"'))
    outcome = project.invoke("plan", "whole.toml")
    assert outcome.code == 8, outcome
    assert "./some.safetensors holds no component of a StableDiffusionPipeline" in outcome.stderr
