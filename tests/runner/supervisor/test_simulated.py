"""Runs of the command on the simulated accelerator: real workers, forked, on a card of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from project import Outcome, Project

MIB = 1 << 20
PLUGIN = """
from __future__ import annotations
from pydantic import BaseModel, ConfigDict
from runner.api import Component, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = "x"
    takes: int = 0
    fails: bool = False


@hookimpl
def runner_stages():
    return (
        Stage(name="card.run", params="card:Params", components=(Component("net", "card_net:Net"),),
              outputs=(Tensor("y", "floating", ("N",)), Text("used")), start="card_net:start",
              memory="card:memory", preload=PRELOAD),
    )


def memory(params, sizes):
    return 1 << 20  # too little: an item takes what it is asked to


PRELOAD = ()
"""
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def start(ctx):
    import torch_sim

    net = ctx.load("net")

    def one(item):
        if item.params.fails:
            torch_sim.fail("an illegal memory access")
        held = torch.ones(item.params.takes << 20, dtype=torch.uint8, device=ctx.device)
        x = torch.randn(net.layers[0].weight.shape[0], device=ctx.device)
        of_the_kind = torch.zeros(1, device=ctx.device.type)  # as libraries write it
        used = " ".join(str(int(torch_sim.is_touched(n))) for n in range(2))
        return {"y": net(x) + held[:1].sum() + of_the_kind, "used": used}

    return one
"""
MANIFEST = """
version = 1
name = "card"
model = { source = "./model" }
stage = [{ name = "run", uses = "card.run" }]
item = [{ id = "a" }, { id = "b" }, { id = "c" }]
"""


@pytest.fixture
def card(sim: Project) -> Project:
    """A model of eight layers of 4 MiB, on the simulated accelerator."""
    import torch
    from safetensors.torch import save_file

    sim.plugin("card", PLUGIN)
    sim.write("packages/card_net.py", NET)
    sim.write("card.toml", MANIFEST)
    sim.write("model/net/config.json", '{"width": 1024, "depth": 8}')
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for n in range(8):
        weights[f"layers.{n}.weight"] = torch.randn(1024, 1024, generator=generator) / 30
        weights[f"layers.{n}.bias"] = torch.zeros(1024)
    save_file(weights, sim.folder / "model/net/model.safetensors")
    return sim


def run(project: Project, *settings: str) -> Outcome:
    return project.runner("run", "card.toml", "--json", *(w for s in settings for w in ("--set", s)))


def results(project: Project) -> dict[str, bytes]:
    from safetensors.torch import load_file

    found = {}
    for file in (project.folder / "runs/card/handoff/run").glob("*.safetensors"):
        found[file.name] = load_file(file)["y"].numpy().tobytes()
    return found


def test_auto_is_the_accelerator_and_the_second_one_is_used_alone(card: Project) -> None:
    card.environment["SIM_POLICY"] = "late"
    outcome = run(card, "stage.run.placement=stream")
    assert outcome.code == 0, outcome
    (started,) = outcome.of("stage_started")
    assert (started["device"], started["placement"]) == ("sim:0", "stream")
    first = results(card)
    assert len(first) == 1, "equal items share a result"
    again = card.runner("run", "card.toml", "--json", "--fresh", "--set", "budget.device=sim:1")
    assert again.code == 0, again
    assert results(card) == first, "neither the device nor the placement matters"
    assert "0 1" in {path.read_text() for path in (card.folder / "runs/card/outputs").glob("*.txt")}
    (finished,) = again.of("stage_finished")
    measured, predicted = finished["measured"], finished["predicted"]
    assert 32 * MIB < measured["vram"] == measured["vram_reserved"] <= predicted["vram"]


def test_on_a_small_card_the_next_smaller_placement_is_tried(card: Project) -> None:
    card.environment["SIM_MEMORY"] = str(64 * MIB)
    outcome = run(card, "item.b.takes=40")
    assert outcome.code == 0, outcome
    (event,) = outcome.of("out_of_memory")
    assert (event["placement"], event["next"]) == ("resident", "group-offload")
    (finished,) = outcome.of("stage_finished")
    assert (finished["done"], finished["failed"]) == (3, 0)
    card.environment["SIM_MEMORY"] = str(4 * MIB)
    assert run(card, "item.b.takes=1").code == 5


def test_a_lost_device_ends_the_worker_and_other_items_are_done_in_another(card: Project) -> None:
    card.environment["SIM_CHECK"] = "0"
    outcome = run(card, "item.b.fails=true", "item.c.takes=1")
    assert outcome.code == 1, outcome
    died = outcome.of("worker_died")
    assert len(died) == 2
    assert "an illegal memory access" in died[0]["error"]
    statuses = {event["item"]: event["status"] for event in outcome.of("item_finished")}
    assert statuses == {"a": "done", "b": "failed", "c": "done"}


@pytest.mark.parametrize("preload", ["()", '("card_touches",)'])
def test_workers_are_forked_unless_the_imports_use_a_device(card: Project, preload: str) -> None:
    card.plugin("card", PLUGIN.replace("PRELOAD = ()", "").replace("preload=PRELOAD", f"preload={preload}"))
    card.write("packages/card_touches.py", "import torch\ntorch.ones(1, device='sim')\n")
    outcome = run(card)
    assert outcome.code == 0, outcome
    assert outcome.of("stage_finished")[0]["done"] == 3
