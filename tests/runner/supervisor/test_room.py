"""Room on the disk is asked for before a stage starts, from what its plugin says that items leave."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from toy_plugin import STAGES

if TYPE_CHECKING:
    from project import Project

LEAVES = """
from pydantic import BaseModel, ConfigDict
from runner.api import Activations, Stage, Tensor, hookimpl
RUNNER_API = 1

class Make(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    thousands: int

@hookimpl
def runner_stages():
    numbers = Tensor("numbers", "floating", ("N",))
    return [Stage(name="roomy.make", params="roomy:Make", outputs=(numbers,), start="roomy:start", memory="roomy:memory")]

def memory(params, sizes):
    return Activations(0, leaves=1000 * params.thousands * sizes.save_itemsize)

def start(ctx):
    import torch
    return lambda item: {"numbers": torch.zeros(4, dtype=ctx.dtype)}
"""
MAKE = STAGES.partition('[[stage]]\nname = "write"')[0].replace("toy.make", "roomy.make")
TWO = '[[item]]\nid = "a"\nprompt = "x"\nthousands = 1\n[[item]]\nid = "b"\nprompt = "y"\nthousands = {}\n'


def test_what_the_disk_cannot_hold_is_refused_before_anything_is_made(toy: Project) -> None:
    toy.plugin("roomy", LEAVES)
    free = shutil.disk_usage(toy.folder).free
    # one alone would fit, two of the largest would not
    toy.write("toy.toml", MAKE + TWO.format(int(0.75 * free) // 4000))
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.code == 9, outcome
    assert "stage 'make': its 2 items leave up to" in outcome.stderr
    assert outcome.of("stage_started") == []
    # handed off in half the bytes, they would
    half = toy.runner("run", "toy.toml", "--json", "--set", "stage.make.save_dtype=bfloat16")
    assert half.code == 0, half
    # and what is there asks for no room
    again = toy.runner("run", "toy.toml", "--set", "stage.make.save_dtype=bfloat16")
    assert again.code == 0, again


def test_the_plan_tells_what_an_item_leaves(toy: Project) -> None:
    toy.plugin("roomy", LEAVES)
    toy.write("toy.toml", MAKE + TWO.format(1024))
    assert toy.invoke("plan", "toy.toml", "--json").events[0]["stages"][0]["leaves"] == 4096 * 1000
    assert "an item leaves up to 3.9 MiB on the disk" in toy.invoke("plan", "toy.toml").stdout
