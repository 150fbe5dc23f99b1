"""The same key makes the same bytes, however what it is made from was written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from typing import Any
from pydantic import BaseModel, ConfigDict, Field, field_validator
from runner.api import Component, File, Stage, Tensor, hookimpl

RUNNER_API = 1


class Make(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    seed: int = 0
    steps: int = 4
    scale: float = 3.5
    loud: bool = False
    table: dict[str, Any] = Field(default_factory=dict)

    @field_validator("prompt")
    def strip(cls, prompt):
        return prompt.strip().lower()


class Draw(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int = 4


@hookimpl
def runner_stages():
    return (
        Stage(
            "same.make", "same:make", params="same:Make", outputs=(Tensor("numbers", "floating", ("N",)),),
            components=(Component("part", "torch.nn:Linear", config_only=True),),
        ),
        Stage(
            "same.draw", "same:draw", params="same:Draw", inputs=(Tensor("numbers", "floating", ("N",)),),
            outputs=(File("picture", ".png"), File("page", ".txt")),
        ),
    )


def make(ctx):
    import torch

    def one(item):
        p = item.params
        return {"numbers": torch.full((4,), p.steps * p.scale + p.loud + len(p.prompt) + len(p.table))}

    return one


def draw(ctx):
    from PIL import Image

    def one(item):
        value = int(item.inputs["numbers"][0])
        return {"picture": Image.new("L", (item.params.side,) * 2, value), "page": str(value).encode()}

    return one
"""
MANIFEST = """
version = 1
name = "NAME"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "make"
uses = "same.make"
[[stage]]
name = "draw"
uses = "same.draw"
"""
TABLE = "[stage.with]\ntable = { b = [2], a = 1 }\n"


def made(project: Project, name: str, items: str, *arguments: str) -> dict[str, bytes]:
    """Outputs by their names less the item's id, which is in no key; ``items`` are the lines of a file."""
    suffix = "csv" if ";" in items else "jsonl"
    project.write(f"{name}.{suffix}", items)
    text = MANIFEST.replace("NAME", name)
    if "table" not in items:
        text = text.replace('uses = "same.make"', f'uses = "same.make"\n{TABLE}')
    project.write(f"{name}.toml", f'{text}[batch]\nfile = "{name}.{suffix}"\n')
    outcome = project.runner("run", f"{name}.toml", *arguments)
    assert outcome.code == 0, outcome
    return {key.rpartition("-")[2]: data for key, data in project.outputs(name).items()}


def test_files_are_the_same_bytes_however_their_parameters_were_written(project: Project) -> None:
    project.plugin("same", PLUGIN)
    project.write("model/part/config.json", "{}")
    first = {"prompt": "A Fox", "steps": 4, "scale": 3.0, "loud": True, "table": {"a": 1, "b": [2]}}
    again = {"id": "other", "table": {"b": [2.0], "a": 1}, "loud": True, "scale": 3, "prompt": " a fox "}
    one = made(project, "first", json.dumps(first))
    assert len(one) == 3  # a picture, a page, and what is said of that
    two = made(project, "again", json.dumps({**again, "seed": None}), "--set", "stage.draw.with.side=4.0")
    assert two == one
    rows = "prompt;steps;loud;seed;scale\n A FOX ;4.0;TRUE;;3\n"
    elsewhere = f"model.source={project.folder / 'model'}"
    assert made(project, "rows", rows, "--set", elsewhere) == one
