"""What a stage leaves and for whom: optional files, texts for people, branches, files without a suffix."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from project import Project

LEAVES = """
import os
from enum import Enum
from pydantic import BaseModel, ConfigDict, Field, field_validator
from runner.api import File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = "p"
    mode: str = ""
    doubled: int = 1
    tags: set[str] = {"one", "two", "three", "four", "five"}
    colour: Colour = Colour.RED
    aliased: int = Field(3, alias="ali-ased")

    @field_validator("doubled")
    @classmethod
    def twice(cls, value):
        return 2 * value


class Caption(BaseModel):
    caption: str = Field("", min_length=8)


@hookimpl
def runner_stages():
    bare = File("bare")
    several = (File("a", ".txt"), File("b", ".txt", optional=True), File("c", ".bin", optional=True))
    return (
        Stage("leaves.several", "leaves:several", params="leaves:Params", outputs=several),
        Stage("leaves.bare", "leaves:bare", params="leaves:Params", outputs=(bare, Text("caption"))),
        Stage("leaves.takes", "leaves:takes", params="leaves:Caption", inputs=(bare,), outputs=(Text("reported"),)),
        Stage("leaves.other", "leaves:other", params="leaves:Params", outputs=(File("o", ".txt"),)),
    )


def several(ctx):
    def one(item):
        if item.params.mode == "chdir":
            os.chdir("/")
        if item.params.mode == "raise":
            raise ValueError("no")
        p = item.params
        return {"a": f"{p.prompt} {p.doubled} {p.colour.value} {p.aliased}".encode()}

    return one


def bare(ctx):
    return lambda item: {"bare": b"bare", "caption": "a caption of some length"}


def takes(ctx):
    return lambda item: {"reported": f"{item.inputs['bare'].read_text()} {item.params.caption}"}


def other(ctx):
    return lambda item: {"o": item.params.prompt.encode()}
"""

HEAD = """
version = 1
name = "leaves"
[budget]
device = "cpu"
threads = 1
"""


def stage(name: str) -> str:
    return f'[[stage]]\nname = "{name}"\nuses = "leaves.{name}"\n'


def ready(project: Project, text: str) -> Project:
    project.plugin("leaves", LEAVES)
    project.write("leaves.toml", HEAD + text)
    return project


def texts(project: Project) -> dict[str, str]:
    return {name: data.decode() for name, data in project.outputs("leaves").items() if name.endswith(".txt")}


def test_files_that_may_be_left_out_are_not_missed_and_not_made_up(project: Project) -> None:
    ready(project, stage("several") + '[[item]]\nid = "x"\nprompt = "p"\n')
    assert project.runner("run", "leaves.toml").code == 0
    first = project.outputs("leaves")
    assert len(first) == 2  # the file and its sidecar
    again = project.runner("run", "leaves.toml", "--json")
    assert again.of("stage_started") == []
    assert project.outputs("leaves") == first


def test_parameters_arrive_as_the_model_says_and_keys_do_not_change(project: Project) -> None:
    item = '[[item]]\nid = "x"\ndoubled = 3\ncolour = "blue"\n"ali-ased" = 5\n'
    ready(project, stage("several") + item)
    for seed in ("1", "2", "3"):
        project.environment["PYTHONHASHSEED"] = seed
        outcome = project.runner("run", "leaves.toml", "--json")
        assert outcome.code == 0, outcome
        assert len(outcome.of("stage_started")) == (1 if seed == "1" else 0)
    assert list(texts(project).values()) == ["p 6 blue 5"]


def test_a_text_that_is_wired_is_checked_when_it_is_there_and_last_texts_are_files(project: Project) -> None:
    ready(project, stage("bare") + stage("takes") + '[[item]]\nid = "x"\nprompt = "p"\n')
    outcome = project.runner("run", "leaves.toml", "--json")
    assert outcome.code == 0, outcome
    assert list(texts(project).values()) == ["bare a caption of some length"]
    assert len(outcome.of("run_finished")[0]["outputs"]) == 1
    assert project.runner("run", "leaves.toml", "--json").of("stage_started") == []


def test_a_failure_in_one_branch_leaves_the_other_alone(project: Project) -> None:
    items = '[[item]]\nid = "x"\nprompt = "p"\nmode = "raise"\n[[item]]\nid = "y"\nprompt = "p"\n'
    ready(project, stage("several") + stage("other") + items)
    outcome = project.runner("run", "leaves.toml", "--json")
    assert outcome.code == 1, outcome
    assert {e["item"] for e in outcome.of("item_finished") if e["stage"] == "other"} == {"x", "y"}
    assert len(texts(project)) == 3


def test_a_stage_that_changes_its_folder_still_writes_where_it_should(project: Project) -> None:
    ready(project, stage("several") + '[[item]]\nid = "x"\nmode = "chdir"\n[[item]]\nid = "y"\n')
    outcome = project.runner("run", "leaves.toml")
    assert outcome.code == 0, outcome
    assert len(texts(project)) == 2
