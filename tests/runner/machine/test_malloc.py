"""Freed RAM is used again where the budget has room for that, and given back at once where it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from project import Outcome, Project

PLUGIN = """
import resource
from pydantic import BaseModel
from runner.api import Activations, Stage, Tensor, hookimpl

RUNNER_API = 1
MIB = 1 << 20
SIDE = 1 << 10  # a square of it is 4 MiB in float32


class Layers(BaseModel):
    known: bool = True


@hookimpl
def runner_stages():
    return (Stage(name="layers.run", start="layers:start", memory="layers:memory", params="layers:Layers",
                  outputs=(Tensor("faults", "integer", ("ONE",)),)),)


def memory(params, sizes):
    return Activations(60 * MIB, suspended=4 * MIB if params.known else None, tokens=SIDE)


def start(ctx):
    import torch

    def layers():
        for _ in range(20):
            held = [torch.ones(SIDE, SIDE) for _ in range(14)]
            del held

    def one(item):
        layers()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        layers()
        return {"faults": torch.tensor([resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before])}

    return one
"""

MANIFEST = """
version = 1
name = "layers"
[budget]
device = "cpu"
threads = 1
ram = "2GiB"
[[stage]]
name = "run"
uses = "layers.run"
[[item]]
id = "one"
"""
PAGES = 20 * 14 * (4 << 20) // 4096  # of all tensors that the layers make


@pytest.fixture
def layers(project: Project) -> Project:
    project.plugin("layers", PLUGIN)
    project.write("layers.toml", MANIFEST)
    return project


def run(project: Project, *settings: str) -> tuple[Outcome, int]:
    """What became of a run, and the pages that the system had to clear for its second round of layers."""
    from safetensors.torch import load_file

    sets = [word for setting in settings for word in ("--set", setting)]
    outcome = project.runner("run", "layers.toml", "--json", "--fresh", *sets)
    assert outcome.code == 0, outcome
    (handoff,) = (project.folder / "runs/layers/handoff/run").glob("*.safetensors")
    return outcome, int(load_file(handoff)["faults"])


def test_freed_memory_is_used_again_within_the_plan(layers: Project) -> None:
    outcome, faults = run(layers)
    assert faults < PAGES / 20
    (stage,) = outcome.of("stage_finished")
    assert stage["measured"]["ram"] < stage["predicted"]["ram"]


def test_it_is_given_back_where_the_budget_has_no_room_for_it(layers: Project) -> None:
    outcome, _ = run(layers)
    predicted = outcome.of("stage_finished")[0]["predicted"]["ram"]
    tight, faults = run(layers, f"budget.ram={(predicted >> 20) - 20}MiB")
    assert faults > PAGES / 2
    (stage,) = tight.of("stage_finished")
    assert stage["predicted"]["ram"] < predicted - (40 << 20)
    assert stage["measured"]["ram"] < stage["predicted"]["ram"]


def test_it_is_given_back_where_the_formula_does_not_tell_what_passes_between_blocks(layers: Project) -> None:
    outcome, faults = run(layers, "stage.run.with.known=false")
    assert faults > PAGES / 2
    parts = layers.runner("plan", "layers.toml", "--json", "--set", "stage.run.with.known=false")
    assert "kept" not in str(parts)
    assert "kept" in str(layers.runner("plan", "layers.toml", "--json"))
    assert outcome.of("run_finished")[0]["exit_code"] == 0
