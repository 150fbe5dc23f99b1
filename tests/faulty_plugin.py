"""A plugin with one fault in each stage, and one stage without."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from __future__ import annotations
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Component, File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Walk(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(description="which way")
    steps: int = Field(6, ge=1, description="how far")


class Narrow(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(max_length=2, description="one of few words")


def memory(params, sizes):
    return 5 * 64 * 64 * sizes.itemsize


def too_little(params, sizes):
    return 64 * 64 * sizes.itemsize


@hookimpl
def runner_stages():
    walk = {"params": "faulty:Walk", "outputs": (Tensor("x", "floating", ("N", "N")),), "memory": "faulty:memory"}
    y = (Tensor("y", "floating", ("N",)),)
    net = {"components": (Component("net", "weighty_net:Net"),), "memory": "faulty:memory", "outputs": y}
    return (
        Stage(name="faulty.well", start="faulty_walks:start_well", **walk),
        Stage(name="faulty.shared", start="faulty_walks:start_shared", **{**walk, "memory": "faulty:too_little"}),
        Stage(name="faulty.random", start="faulty_walks:start_random", **walk),
        Stage(name="faulty.lying", start="faulty_walks:start_lying", **walk),
        Stage(name="faulty.dying", start="faulty_walks:start_dying", **walk),
        Stage(name="faulty.absent", start="faulty_walks:start_nowhere", **walk),
        Stage(name="faulty.narrow", start="faulty_walks:start_well", **{**walk, "params": "faulty:Narrow"}),
        Stage(name="faulty.choosy", start="faulty_walks:start_choosy", **walk),
        Stage(name="faulty.sound", inputs=(File("sound", ".wav"),), outputs=(Text("t"),), start="faulty_walks:start_well"),
        Stage(name="faulty.greedy", outputs=(Text("t"),), start="faulty_walks:start_greedy"),
        Stage(name="faulty.net", start="faulty_nets:start_net", **net),
    )
"""

NETTED = """
from runner.api import Component, Stage, Tensor, hookimpl

RUNNER_API = 1


def memory(params, sizes):
    return 20 * sizes.configs["net"]["width"] * sizes.itemsize


@hookimpl
def runner_stages():
    net = {"components": (Component("net", "weighty_net:Net"),), "memory": "netted:memory"}
    return [
        Stage(name="netted.net", start="faulty_nets:start_net", outputs=(Tensor("y"),), **net),
        Stage(name="netted.keeping", start="faulty_nets:start_keeping", outputs=(Tensor("z"),), **net),
    ]
"""

NETS = """
import torch


def start_net(ctx):
    net = ctx.load("net")
    return lambda item: {"y": net(torch.rand(32))}


def start_keeping(ctx):
    net = ctx.load("net")
    first = net.layers[0].weight
    return lambda item: {"z": net(torch.rand(32)) + first.sum()}
"""

WALKS = """
import os, random
import torch


def walk(item, x, done=0):
    for step in range(done, item.params.steps):
        x = (x @ x.T).softmax(0) + torch.rand(64, 64) * 0.1
        item.step(step + 1, item.params.steps, x)
    return x


def start_well(ctx):
    def one(item):
        done, x = item.saved or (0, torch.rand(64, 64))
        return {"x": walk(item, x, done)}
    return one


class Scheduler:
    at = 0


def start_shared(ctx):
    scheduler = Scheduler()

    def one(item):
        scheduler.at = 0
        x = torch.rand(64, 64)
        if item.saved:
            x = item.saved.state  # begins at the first step again
        for step in range(item.params.steps):
            x = x * (scheduler.at + 1)
            scheduler.at += 1
            item.step(step + 1, item.params.steps, x)
        return {"x": x}
    return one


def start_random(ctx):
    def one(item):
        return {"x": torch.full((64, 64), random.SystemRandom().random())}
    return one


def start_lying(ctx):
    return lambda item: {"x": torch.ones(64, dtype=torch.float32)}


def start_dying(ctx):
    def one(item):
        print("farewell", flush=True)
        os._exit(3)
    return one


def start_choosy(ctx):
    def one(item):
        raise ValueError("only left or right")
    return one


def start_greedy(ctx):
    def one(item):
        held = b"." * (64 << 20)
        return {"t": str(len(held))}
    return one
"""


def install(project: Project) -> None:
    project.plugin("faulty", PLUGIN)
    project.plugin("netted", NETTED)
    project.write("packages/faulty_walks.py", WALKS)
    project.write("packages/faulty_nets.py", NETS)
