"""Three stages, each made from the one before, for runs with workers by a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project


CHAIN = """
from pydantic import BaseModel, ConfigDict
from runner.api import Activations, File, Stage, Text, hookimpl
RUNNER_API = 1

class First(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str

class Last(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ending: str = ""

@hookimpl
def runner_stages():
    page = (File("page", ".txt"),)
    return [
        Stage("chain.one", "chain:start", params="chain:First", outputs=(Text("a"),), memory="chain:memory"),
        Stage("chain.two", "chain:start", inputs=(Text("a"),), outputs=(Text("b"),)),
        Stage("chain.three", "chain:start", params="chain:Last", inputs=(Text("b"),), outputs=page),
    ]

def memory(params, sizes):
    return Activations(0, leaves=1 << 20)
"""
MANIFEST = """
version = 1
name = "chain"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "one"
uses = "chain.one"
[[stage]]
name = "two"
uses = "chain.two"
[[stage]]
name = "three"
uses = "chain.three"
[[item]]
id = "a"
prompt = "a"
[[item]]
id = "b"
prompt = "b"
"""


def directory(chain: Project) -> RunDirectory:
    return RunDirectory(chain.folder / "runs/chain")


def handoffs(chain: Project, stage: str) -> list[Path]:
    return sorted((directory(chain).path / "handoff" / stage).glob("*.safetensors"))
