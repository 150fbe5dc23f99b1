"""A stage as its plugin declares it, for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from enum import Enum
from typing import Annotated, Any, Literal
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Component, File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    deep: int = 0


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(description="what to draw")
    strength: float = Field(0.8, gt=0, lt=1, alias="power")
    tiles: Literal["auto"] | Annotated[int, Field(ge=64, multiple_of=64)] = "auto"
    colour: Colour = Colour.RED
    sizes: list[int] = Field(default_factory=list, max_length=3)
    inner: Inner | None = None
    anything: Any = None
    loud: bool = False


@hookimpl
def runner_stages():
    return (
        Stage(
            "facts.paint", "facts:start", version=3, summary="pictures of facts", params="facts:Params",
            inputs=(Tensor("latents", "bfloat16", ("C", 8)), Text("caption", optional=True)),
            outputs=(File("image", ".png"),),
            components=(Component("net", "torch.nn:Linear", folder="unet", blocks=("layers",)),
                        Component("vae", "torch.nn:Linear", config_only=True)),
            memory="facts:memory",
        ),
        Stage("facts.bare", "facts:start", outputs=(Text("t"),)),
        Stage("facts.broken", "facts:start", params="facts:Missing", outputs=(Text("t"),)),
    )
"""


def test_all_that_a_stage_declares_is_shown(project: Project) -> None:
    project.plugin("facts", PLUGIN)
    report: dict[str, Any] = json.loads(project.invoke("plugins", "show", "facts.paint", "--json").stdout)
    assert (report["plugin"], report["distribution"], report["version"]) == ("facts", "facts-plugin", 3)
    parameters = {one.pop("name"): one for one in report["parameters"]}
    assert parameters["prompt"] == {
        "type": "text",
        "required": True,
        "default": None,
        "description": "what to draw",
    }
    assert parameters["power"]["more_than"] == 0
    assert parameters["power"]["less_than"] == 1
    assert parameters["tiles"]["type"] == "'auto' or whole number"
    assert parameters["tiles"]["multiple_of"] == 64
    assert parameters["colour"]["type"] == "'red' or 'blue'"
    assert parameters["colour"]["default"] == "red"
    assert (parameters["sizes"]["type"], parameters["sizes"]["max_length"]) == ("list of whole number", 3)
    assert parameters["inner"]["type"] == "table"
    assert report["takes"][0] == {
        "name": "latents",
        "kind": "tensor",
        "dtype": "bfloat16",
        "shape": ["C", 8],
        "optional": False,
    }
    assert report["leaves"] == [{"name": "image", "kind": "file", "suffix": ".png", "optional": False}]
    assert [(c["name"], c["folder"], c["config_only"]) for c in report["loads"]] == [
        ("net", "unet", False),
        ("vae", "vae", True),
    ]
    assert report["memory_formula"] is True

    listed = json.loads(project.invoke("plugins", "list", "--json").stdout)["plugins"]
    stages = {stage["name"]: stage for plugin in listed for stage in plugin["stages"]}
    assert (
        stages["facts.paint"].items()
        <= json.loads(project.invoke("plugins", "show", "facts.paint", "--json").stdout).items()
    )
    assert stages["facts.broken"]["parameters"] is None
    assert stages["facts.bare"]["parameters"] == []


def test_it_is_a_line_a_parameter_where_nobody_says_how_wide_a_line_is(project: Project) -> None:
    project.plugin("facts", PLUGIN)
    del project.environment["COLUMNS"]
    shown = project.runner("plugins", "show", "facts.paint").stdout.splitlines()
    assert shown[0] == "facts.paint: pictures of facts"
    lines = {line.partition(" ")[0]: line for line in shown}
    assert "(needed)" in lines["prompt"]
    assert lines["prompt"].rstrip().endswith("what to draw")
    assert "at least 64, a multiple of 64" in lines["tiles"]
    assert "tensor, bfloat16 (C, 8)" in lines["latents"]
    assert "only its config.json" in lines["vae"]


def test_stages_that_cannot_be_shown(project: Project) -> None:
    project.plugin("facts", PLUGIN)
    for name, code, words in (
        ("facts.piant", 4, "did you mean 'facts.paint'?"),
        ("facts.broken", 4, "cannot import 'facts:Missing'"),
        ("facts", 2, "'facts' is a plugin; its stages are facts.paint, facts.bare, facts.broken"),
    ):
        outcome = project.invoke("plugins", "show", name)
        assert outcome.code == code, outcome
        assert words in outcome.stderr
