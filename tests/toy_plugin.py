"""A plugin of two small stages that need no model, and manifests for it."""

from __future__ import annotations

TOY = """
from __future__ import annotations
import os, pathlib, signal, time
from pydantic import BaseModel, ConfigDict, Field
from runner.api import File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Make(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    seed: int = Field(0, ge=0, lt=2**64)
    steps: int = Field(2, ge=1)
    behave: str = "well"


class Write(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ending: str = "."


@hookimpl
def runner_stages():
    return (
        Stage(
            name="toy.make",
            params="toy:Make",
            outputs=(Tensor("numbers", "floating", ("N",)), Text("caption"), Tensor("extra", "any", optional=True)),
            start="toy:start_make",
        ),
        Stage(
            name="toy.write",
            params="toy:Write",
            inputs=(Tensor("numbers", "floating", ("N",)), Text("caption")),
            outputs=(File("page", ".txt"),),
            start="toy:start_write",
        ),
    )


def start_make(ctx):
    import torch

    def one(item):
        p = item.params
        behave(p.behave, item)
        for n in range(p.steps):
            item.step(n + 1, p.steps)
        numbers = torch.rand(4, generator=torch.Generator().manual_seed(p.seed % 2**63)).to(ctx.device, ctx.dtype)
        drawn = {"numbers": numbers, "caption": p.prompt.upper()}
        return {
            "nan": {**drawn, "numbers": numbers * float("nan")},
            "inf": {**drawn, "numbers": numbers / 0},
            "large": {**drawn, "numbers": numbers + 1e5},
            "complex": {**drawn, "extra": torch.tensor([1, float("nan") * 1j])},
            "rank": {**drawn, "numbers": numbers[None]},
            "shared": {**drawn, "extra": drawn["numbers"][:2]},
            "endless": {**drawn, "caption": "x" * (1 << 21)},
            "integers": {**drawn, "numbers": numbers.long()},
            "missing": {"caption": "x"},
            "undeclared": {**drawn, "more": numbers},
            "nothing": None,
            "random": {**drawn, "numbers": torch.rand(4)},
        }.get(p.behave, drawn)

    return one


class Wordless(Exception):
    def __str__(self):
        raise KeyError


def behave(how, item):
    if how == "raise":
        raise ValueError(f"{item.id} cannot be made")
    if how == "quit":
        raise SystemExit(3)
    if how == "wordless":
        raise Wordless
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "print":
        print("a line on stdout")
        os.write(2, b"a line on stderr\\n")
    if how == "wait":
        # until the test says so, or for good
        flag = pathlib.Path(os.environ["TOY_FLAGS"], item.id)
        flag.touch()
        while not flag.with_suffix(".go").exists():
            item.step(1, 2)
            time.sleep(0.01)
    if how == "flood":
        # until the test says so, with more to tell than a pipe holds
        flag = pathlib.Path(os.environ["TOY_FLAGS"], item.id)
        flag.touch()
        while not flag.with_suffix(".go").exists():
            item.step(1, 2)
    if how == "grow":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20) * 8))
    if how == "hang":
        pathlib.Path(os.environ["TOY_FLAGS"], item.id).touch()
        while True:
            time.sleep(1)


def start_write(ctx):
    def one(item):
        total = item.inputs["numbers"].double().sum().item()
        return {"page": f"{item.inputs['caption']} {total:.6f}{item.params.ending}".encode()}

    return one
"""

STAGES = """\
version = 1
name = "toy"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "make"
uses = "toy.make"
[[stage]]
name = "write"
uses = "toy.write"
"""

MANIFEST = (
    STAGES
    + """
[batch]
prompts = ["one", "two"]
"""
)

# the second item behaves as the test says
BEHAVING = (
    STAGES
    + """
[[item]]
id = "first"
prompt = "first"
[[item]]
id = "item"
prompt = "x"
behave = "{}"
"""
)
