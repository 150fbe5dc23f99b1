"""`runner new` follows the model: its configs and its card say what a template leaves to them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import runner_flux
import tomli
from PIL import Image
from runner_flux.recommend import recommend
from safetensors.torch import load_file, save_file

from runner.api import ModelFacts

if TYPE_CHECKING:
    from project import Outcome, Project

DEMO = Path(runner_flux.__file__).parent / "demo"
HARDWARE = ["--device", "cpu", "--ram", "8GiB"]


@pytest.fixture
def mine(project: Project) -> Project:
    """A project with a copy of the demo model in ``./mine``, without its card."""
    shutil.copytree(DEMO, project.folder / "mine")
    (project.folder / "mine/README.md").unlink()
    return project


def edit(project: Project, component: str, **values: Any) -> None:
    path = project.folder / f"mine/{component}/config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def made(project: Project, model: str = "./mine") -> tuple[Outcome, dict[str, Any]]:
    outcome = project.invoke("new", *HARDWARE, "--model", model, "-o", "my.toml")
    assert outcome.code == 0, outcome
    table = tomli.loads((project.folder / "my.toml").read_text())
    return outcome, {**{stage["name"]: stage["with"] for stage in table["stage"]}, **table["batch"]}


def test_the_demo_model_gets_what_its_card_says_and_draws(project: Project) -> None:
    outcome, table = made(project, "plugin:flux/demo")
    assert table["encode"] == {"max_sequence_length": 64}
    assert table["diffuse"] == {"steps": 12, "guidance_scale": 3.5, "height": 128, "width": 128}
    assert "a large purple heart on a yellow background" in table["prompts"]
    assert "stage.diffuse.with.height = 128: as the model's own files say" in outcome.stderr
    assert project.invoke("validate", "my.toml").code == 0
    one = [
        "--prompt",
        table["prompts"][0],
        "--set",
        "stage.diffuse.with.steps=1",
        "--set",
        "budget.threads=1",
    ]
    assert project.runner("run", "my.toml", *one).code == 0
    (picture,) = (project.folder / "runs/my/outputs").glob("*.png")
    with Image.open(picture) as opened:
        assert opened.size == (128, 128)


@pytest.mark.parametrize(("size", "side"), [(192, 192), (100, 96), (512, 512), (3, None), (None, None)])
def test_pictures_have_the_size_that_the_vae_was_made_for(size: int | None, side: int | None) -> None:
    recommended = recommend(ModelFacts({"vae": {"sample_size": size}}, {})).parameters["diffuse"]
    assert (recommended.get("height"), recommended.get("width")) == (side, side)


def test_a_size_that_is_no_multiple_is_rounded_and_the_rest_is_the_templates(mine: Project) -> None:
    edit(mine, "vae", sample_size=100)
    _, table = made(mine)
    assert table["diffuse"] | {"height": 96, "width": 96, "steps": 20} == table["diffuse"]
    assert table["encode"]["max_sequence_length"] == 512


def test_a_model_without_guidance_is_run_as_schnell_is(mine: Project) -> None:
    edit(mine, "transformer", guidance_embeds=False)
    (weights,) = (mine.folder / "mine/transformer").glob("*.safetensors")
    save_file({n: t for n, t in load_file(weights).items() if "guidance_embedder" not in n}, weights)
    outcome, table = made(mine)
    assert table["diffuse"] == {"steps": 4, "height": 128, "width": 128}
    assert table["encode"] == {"max_sequence_length": 256}
    assert "stage.diffuse.with.guidance_scale removed" in outcome.stderr
    assert mine.invoke("validate", "my.toml").code == 0


def test_a_card_comes_before_the_configs_and_one_that_cannot_be_read_gets_a_note(mine: Project) -> None:
    card = (
        "---\ninference:\n  parameters: {height: 64, num_inference_steps: 7}\nwidget: [{text: x}, 3]\n---\n"
    )
    mine.write("mine/README.md", card)
    _, table = made(mine)
    assert table["diffuse"] == {"steps": 7, "guidance_scale": 3.5, "height": 64, "width": 128}
    assert table["prompts"] == ["x"]
    (mine.folder / "my.toml").unlink()
    mine.write("mine/README.md", "---\ninference: [\n---\n")
    outcome, table = made(mine)
    assert "README.md is ignored, it cannot be read" in outcome.stderr
    assert table["diffuse"]["height"] == 128


@pytest.mark.parametrize("value", ['"many"', "0", "[1]"])
def test_what_no_stage_would_take_is_the_models_fault(mine: Project, value: str) -> None:
    mine.write("mine/README.md", f"---\ninference:\n  parameters: {{num_inference_steps: {value}}}\n---\n")
    outcome = mine.invoke("new", *HARDWARE, "--model", "./mine", "-o", "my.toml")
    assert outcome.code == 8, outcome
    assert "what the model's own files recommend is refused" in outcome.stderr
    assert "'steps'" in outcome.stderr
    assert not (mine.folder / "my.toml").exists()


def test_a_model_that_says_what_the_template_says_changes_nothing(mine: Project) -> None:
    edit(mine, "vae", sample_size=1024)
    outcome, table = made(mine)
    assert (table["diffuse"]["height"], table["diffuse"]["steps"]) == (1024, 20)
    assert "as the model's own files say" not in outcome.stderr
