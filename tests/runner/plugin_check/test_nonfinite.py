"""Stages that make an output of NaN or infinite numbers are found; those that check their numbers pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import weighty_plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

PLUGIN = """
from runner.api import Component, File, Stage, Tensor, Text, hookimpl
RUNNER_API = 1

@hookimpl
def runner_stages():
    x, page = (Tensor("x", "floating", ("N",)),), (File("page", ".bin"),)
    net = (Component("net", "weighty_net:Net"),)
    return [
        Stage(name="blind.paint", inputs=x, outputs=page, start="blind_work:start_paint"),
        Stage(name="blind.careful", inputs=x, outputs=page, start="blind_work:start_careful"),
        Stage(name="blind.count", inputs=x, outputs=(Tensor("ids", "integer"),), start="blind_work:start_count"),
        Stage(name="blind.unused", inputs=x, outputs=(Text("t"),), start="blind_work:start_unused"),
        Stage(name="blind.net", components=net, outputs=(Text("t"),), start="blind_work:start_net"),
        Stage(name="blind.seeing", components=net, outputs=(Text("u"),), start="blind_work:start_seeing"),
    ]
"""

WORK = """
import torch


def as_bytes(x):
    return bytes((x.clamp(0, 1) * 255).to(torch.uint8))


def start_paint(ctx):
    return lambda item: {"page": as_bytes(item.inputs["x"])}


def start_careful(ctx):
    def one(item):
        item.check_finite("page", item.inputs["x"])
        return {"page": as_bytes(item.inputs["x"])}
    return one


def start_count(ctx):
    return lambda item: {"ids": (item.inputs["x"] * 100).long()}


def start_unused(ctx):
    return lambda item: {"t": "the same" if item.inputs["x"].isnan().any() else "the same"}


def start_net(ctx):
    net = ctx.load("net")

    def one(item):
        y = net(torch.rand(32))
        if y.isnan().any():
            raise ValueError("NaN alone is looked for")
        return {"t": str(y.clamp(0, 1).tolist())}
    return one


def start_seeing(ctx):
    net = ctx.load("net")

    def one(item):
        y = net(torch.rand(32))
        item.check_finite("u", y)
        return {"u": str(y.clamp(0, 1).tolist())}
    return one
"""

MANIFEST = """
version = 1
name = "blind"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "net"
uses = "blind.net"
[[stage]]
name = "seeing"
uses = "blind.seeing"
[[item]]
id = "one"
"""


def test_outputs_that_hide_what_is_not_finite_are_found(project: Project, check: Callable[..., Any]) -> None:
    weighty_plugin.install(project, width=32, depth=2)
    project.plugin("blind", PLUGIN)
    project.write("packages/blind_work.py", WORK)
    project.write("blind.toml", MANIFEST)

    outcome, found = check("blind", "--manifest", "blind.toml")

    verdicts = {stage: found[f"blind.{stage}"]["finite"] for stage in ("paint", "count", "net")}
    assert {verdict["status"] for verdict in verdicts.values()} == {"broken"}, outcome
    assert verdicts["paint"]["message"].startswith("'page' is made of numbers that are not finite")
    assert verdicts["count"]["message"].endswith("when its inputs are NaN")
    assert verdicts["net"]["message"].endswith("when its components return infinite numbers")
    assert 'item.check_finite("t", numbers)' in verdicts["net"]["advice"]
    for stage in ("careful", "unused", "seeing"):
        assert found[f"blind.{stage}"]["finite"]["status"] == "ok"
