"""A plugin whose stage has weights, and items that take as much memory as they are asked to; and its model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from __future__ import annotations
import os, pathlib, time
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Component, Stage, Tensor, hookimpl

RUNNER_API = 1
MIB = 1 << 20


class Run(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    takes: int = Field(0, json_schema_extra={"less_memory": [8, 4]})
    behave: str = "well"
    times: int = 1


@hookimpl
def runner_stages():
    loads = {"params": "weighty:Run", "outputs": (Tensor("y", "floating", ("N",)),)}
    return (
        Stage(name="weighty.run", components=(Component("net", "weighty_net:Net"),), start="weighty_net:start",
              memory="weighty:memory", **loads),
        Stage(name="weighty.bare", start="weighty_net:start_bare", **loads),
    )


def memory(params, sizes):
    return params.takes * MIB + sizes.configs["net"]["width"] * sizes.itemsize
"""

NET = """
import os, pathlib, time
import torch

MIB = 1 << 20


class Net(torch.nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def start(ctx):
    net = ctx.load("net")
    width = ctx.config("net")["width"]

    def one(item):
        seed = torch.Generator().manual_seed(len(item.params.prompt))
        x = torch.randn(width, generator=seed).to(ctx.device, ctx.dtype)
        behave(item)
        return {"y": net(x)}

    return one


def start_bare(ctx):
    def one(item):
        behave(item)
        return {"y": torch.ones(4)}

    return one


def behave(item):
    p, flag = item.params, pathlib.Path(os.environ["WEIGHTY_FLAGS"], item.id)
    held = torch.ones(p.takes * MIB, dtype=torch.uint8)
    if p.takes:
        time.sleep(0.15)  # for as long as two looks at the memory are apart, at the least
    runs = flag.read_text() if flag.exists() else ""
    if p.behave == "well" or len(runs) >= p.times:
        return
    flag.write_text(runs + ".")
    if p.behave == "error":
        raise torch.OutOfMemoryError("tried to allocate more than there is")
    if p.behave == "allocate":
        torch.empty(1 << 50, dtype=torch.uint8)
    hold = []
    while p.behave == "grow":
        hold.append(torch.ones(8 * MIB, dtype=torch.uint8))
        if len(hold) * 8 > 200:
            with flag.with_suffix(".over").open("a") as times:
                times.write(f"{time.process_time()}\\n")  # of computing since it went over its budget
    if p.behave == "burst":
        torch.ones(3000 * MIB, dtype=torch.uint8)
        time.sleep(60)
"""

MANIFEST = """\
version = 1
name = "weighty"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
ram = "600MiB"
[[stage]]
name = "run"
uses = "weighty.run"
[[item]]
id = "first"
prompt = "first"
[[item]]
id = "item"
prompt = "item"
"""


def install(project: Project, *, width: int = 1024, depth: int = 40) -> None:
    """The plugin, a model of ``depth`` layers of ``4 * width ** 2`` bytes each (float32), and a manifest."""
    project.plugin("weighty", PLUGIN)
    project.write("packages/weighty_net.py", NET)
    project.write("weighty.toml", MANIFEST)
    (project.folder / "flags").mkdir()
    project.environment["WEIGHTY_FLAGS"] = str(project.folder / "flags")
    folder = project.folder / "model/net"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"width": width, "depth": depth}))
    torch.manual_seed(0)
    names = ["first", *(f"layers.{n}" for n in range(depth))]
    weights = {f"{name}.weight": torch.randn(width, width) / width**0.5 for name in names}
    weights |= {f"{name}.bias": torch.randn(width) for name in names}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
