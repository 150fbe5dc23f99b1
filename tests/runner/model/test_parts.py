"""Components from elsewhere, ``[model.components]``: from a folder, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from parts import MANIFEST, WEIGHTS, WITHOUT, started
from safetensors.torch import load_file, save_file

from runner.api import Component
from runner.manifest.schema import ModelSource, PartSource
from runner.manifest.sources import check_source, part_source
from runner.model.facts import facts_of, part_config
from runner.model.parts import located
from runner.plugins import discover

if TYPE_CHECKING:
    from project import Project

VAE = Component("vae", "diffusers:AutoencoderKL")


def brighten(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({name: weight * 0.9 for name, weight in weights.items()}, folder / WEIGHTS, {"format": "pt"})


def test_the_same_bytes_from_elsewhere_have_the_same_key_and_others_change_one_stage(parted: Project) -> None:
    assert started(parted.runner("run", "without.toml", "--json")) == ["encode", "diffuse", "decode"]
    assert started(parted.runner("run", "parts.toml", "--json")) == []
    brighten(parted.folder / "my-vae")
    assert started(parted.runner("run", "parts.toml", "--json")) == ["decode"]
    first, second = sorted(parted.outputs("parts").values())
    assert first != second
    override = ["--set", "model.components.vae=plugin:flux/demo/vae"]
    assert started(parted.runner("run", "parts.toml", "--json", *override)) == []
    recorded = parted.folder / "runs/parts/manifest.toml"
    assert 'vae = "plugin:flux/demo/vae"' in recorded.read_text()


def test_a_stage_loads_from_there_and_it_is_reproduced_from_there(parted: Project) -> None:
    brighten(parted.folder / "my-vae")
    assert started(parted.runner("run", "parts.toml", "--json")) == ["encode", "diffuse", "decode"]
    assert 'vae = "../../my-vae"' in (parted.folder / "runs/parts/manifest.toml").read_text()
    (name,) = parted.outputs("parts")
    shutil.copy(parted.folder / "runs/parts/outputs" / name, parted.folder / "kept.png")
    shutil.rmtree(parted.folder / "runs")
    again = parted.runner("reproduce", "kept.png")
    assert again.code == 0, again
    assert "made again, bit for bit" in again.stderr

    (parted.folder / "my-vae").rename(parted.folder / "moved")
    gone = parted.invoke("reproduce", "kept.png")
    assert gone.code == 8, gone
    assert f"there is no model folder {parted.folder / 'my-vae'}" in gone.stderr


def test_a_pipeline_elsewhere_has_it_in_its_folder(parted: Project) -> None:
    shutil.copytree(DEMO, parted.folder / "other")
    outcome = parted.invoke("validate", "parts.toml", "--set", "model.components.vae=./other")
    assert outcome.code == 0, outcome
    shutil.rmtree(parted.folder / "other/vae")
    outcome = parted.invoke("validate", "parts.toml", "--set", "model.components.vae=./other")
    assert outcome.code == 8, outcome


def test_a_stages_own_model_has_parts_of_its_own(parted: Project) -> None:
    own = '[stage.model]\nsource = "plugin:flux/demo"\n[stage.model.components]\nvae = "./gone"\n'
    parted.write("own.toml", WITHOUT.replace('uses = "flux.decode"\n', f'uses = "flux.decode"\n{own}'))
    outcome = parted.invoke("validate", "own.toml")
    assert outcome.code == 8, outcome
    assert outcome.stderr.startswith("own.toml:26:7: there is no model folder"), outcome
    (parted.folder / "my-vae").rename(parted.folder / "gone")
    assert parted.invoke("validate", "own.toml").code == 0


@pytest.mark.parametrize(
    ("name", "source", "code", "words"),
    [
        (
            "vea",
            "./my-vae",
            3,
            "parts.toml:6:1: no stage loads a component 'vea' of this model; did you mean 'vae'?",
        ),
        (
            "nothing",
            "./my-vae",
            3,
            "no stage loads a component 'nothing' of this model (they load: text_encoder,",
        ),
        ("vae", "./gone", 8, "parts.toml:6:7: there is no model folder"),
        ("vae", "plugin:flux/demo/text_encoder_2", 8, "component 'vae' is of class T5EncoderModel"),
        ("vae", "./damaged", 8, f"damaged/{WEIGHTS} is damaged"),
        ("vae", "./my-vae.safetensors", 8, "there is no file"),
        ("vae", "my-vae.safetensors", 3, 'write "./my-vae.safetensors" for the one beside the manifest'),
        ("vae", "./my-vae.ckpt", 3, "is pickled, and can run code when loaded"),
        ("vae", "some-lab/files:../vae.gguf", 3, "is not in a repository"),
        (
            "vae",
            "flux/vae",
            8,
            'write "./flux/vae" for the folder, or write "flux/vae@main" for the model on the',
        ),
        ("vae", "my vae", 3, "parts.toml:6:7: 'my vae' is not a model source"),
        ("vae", "", 3, "parts.toml:6:7: "),
    ],
)
def test_a_part_that_is_wrong_is_reported_where_it_is_named(
    parted: Project, name: str, source: str, code: int, words: str
) -> None:
    damaged = shutil.copytree(parted.folder / "my-vae", parted.folder / "damaged") / WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (parted.folder / "flux/vae").mkdir(parents=True)
    parted.write("parts.toml", MANIFEST.replace('vae = "./my-vae"', f'{name} = "{source}"'))
    outcome = parted.invoke("validate", "parts.toml")
    assert outcome.code == code, outcome
    assert words in outcome.stderr, outcome


def test_an_unknown_name_on_the_command_line_is_a_usage_error(parted: Project) -> None:
    outcome = parted.invoke("validate", "parts.toml", "--set", "model.components.vea=./my-vae")
    assert outcome.code == 2, outcome
    assert "did you mean 'vae'?" in outcome.stderr


def test_a_tokenizer_beside_an_encoder_has_no_weights(parted: Project) -> None:
    shutil.copytree(DEMO / "text_encoder_2", parted.folder / "t5")
    shutil.copytree(DEMO / "tokenizer_2", parted.folder / "t5", dirs_exist_ok=True)
    both = 'text_encoder_2 = "./t5"\ntokenizer_2 = "./t5"'
    parted.write("parts.toml", MANIFEST.replace('vae = "./my-vae"', both))
    planned = json.loads(parted.runner("plan", "parts.toml", "--json").stdout)
    usual = json.loads(parted.runner("plan", "without.toml", "--json").stdout)
    assert planned["stages"][0]["predicted"] == usual["stages"][0]["predicted"]
    assert started(parted.runner("run", "parts.toml", "--json"))


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("lab/vae", ("lab/vae", None, None)),
        ("lab/vae:sub/folder", ("lab/vae", None, "sub/folder")),
        ("lab/vae@main", ("lab/vae", "main", None)),
        ("lab/vae@v1.0:sub", ("lab/vae", "v1.0", "sub")),
        ("./vae:odd@name", ("./vae:odd@name", None, None)),
        ("plugin:flux/demo", ("plugin:flux/demo", None, None)),
    ],
)
def test_how_a_part_is_written(written: str, parts: tuple[str, str | None, str | None]) -> None:
    found = part_source(ModelSource(source="a/b", components={"vae": written}), "vae")
    assert found is not None
    assert (found.source, found.revision, found.subfolder) == parts
    assert check_source(found, Path()) is None


@pytest.mark.parametrize(
    "written", ["a/b:", "a/b:/etc", "a/b:../c", "a/b@:c", "a/b@..", ":c", "hf.co/a/b", "a@b"]
)
def test_how_a_part_is_not_written(written: str) -> None:
    found = part_source(ModelSource(source="a/b", components={"vae": written}), "vae")
    assert found is not None
    assert check_source(found, Path())


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["config.json", "x.safetensors"], "."),
        (["model_index.json", "vae/config.json"], "vae"),
        (["model_index.json", "config.json", "vae/config.json"], "vae"),
        (["config.json", "vae/config.json"], "."),
        (["README.md", "vae/config.json"], "vae"),
        (["model_index.json", "vae_1_0/config.json"], "."),
    ],
)
def test_where_a_part_lies(names: list[str], folder: str) -> None:
    (found,) = located(PartSource(source="a/b", component="vae"), [VAE], names)
    assert found.path == folder
    (given,) = located(PartSource(source="a/b", component="vae", subfolder="given"), [VAE], names)
    assert given.path == "given"


def test_the_configs_of_parts_are_facts_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama/config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "llama/tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    names = ("text_encoder_4", "tokenizer_4", "vae")
    model = ModelSource(source=str(DEMO), components=dict.fromkeys(names, "./llama"))
    parts = {name: part_source(model, name) for name in names}
    configs = {name: part_config(part, tmp_path, discover()) for name, part in parts.items() if part}
    facts = facts_of(model, tmp_path, discover(), configs)
    assert facts.configs["text_encoder_4"] == facts.configs["vae"] == {"architectures": ["LlamaForCausalLM"]}
    assert facts.configs["tokenizer_4"] == {"tokenizer_class": "PreTrainedTokenizerFast"}
    assert facts.configs["transformer"]["_class_name"] == "FluxTransformer2DModel"
