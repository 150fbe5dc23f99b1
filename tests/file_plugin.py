"""A plugin whose parameters are files, and a manifest that uses it."""

PLUGIN = """
import os, pathlib
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
from runner.api import File, InputFile, InputFolder, Stage, Text, hookimpl

RUNNER_API = 1


class Read(BaseModel):
    model_config = ConfigDict(extra="forbid")
    image: InputFile = Field(description="what is read")
    mask: InputFile | None = None
    more: list[InputFile] = []
    frames: InputFolder | None = None
    mode: Literal["plain", "changing", "late"] = "plain"


class Show(BaseModel):
    model_config = ConfigDict(extra="forbid")
    mask: InputFile | None = None
    ending: str = ""


@hookimpl
def runner_stages():
    return (
        Stage("look.read", "look:read", params="look:Read", outputs=(Text("seen"),)),
        Stage("look.show", "look:show", params="look:Show", inputs=(Text("seen"),), outputs=(File("page", ".txt"),)),
    )


def words(path):
    if path.is_dir():
        return " ".join(words(one) for one in sorted(path.iterdir()))
    return path.read_text()


def read(ctx):
    def one(item):
        p = item.params
        if p.mode == "changing":
            p.image.write_text("changed while it was read")
        found = [p.image, *p.more] + [f for f in (p.mask, p.frames) if f]
        assert all(isinstance(f, pathlib.Path) and f.is_absolute() for f in found)
        if p.mode == "late":  # the next stage's file
            pathlib.Path(os.environ["LOOK_AT"]).write_text("changed before the next stage")
        return {"seen": " ".join(words(f) for f in found)}
    return one


def show(ctx):
    return lambda item: {"page": (item.inputs["seen"] + item.params.ending).encode()}
"""
STAGES = """\
version = 1
name = "look"
budget = { device = "cpu", threads = 1 }
[[stage]]
name = "read"
uses = "look.read"
[[stage]]
name = "show"
uses = "look.show"
"""
ITEM = """\
[[item]]
id = "one"
image = "pics/fox.txt"
"""
