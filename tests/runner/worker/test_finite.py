"""Numbers that are not finite fail their item, whatever a stage makes of them, and whatever its author forgot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from runner.worker.finite import is_finite

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from pydantic import BaseModel, ConfigDict
from runner.api import Component, File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Draw(BaseModel):
    model_config = ConfigDict(extra="forbid")
    how: str = "well"


@hookimpl
def runner_stages():
    outputs = (File("page", ".bin"), Text("words"), Tensor("ids", "integer"))
    net = (Component("net", "painter_net:Net"),)
    return [Stage(name="painter.draw", params="painter:Draw", components=net, outputs=outputs, start="painter_net:start")]
"""

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(8, 8)

    def decode(self, x):  # what is called is a child
        return self.head(x)


def start(ctx):
    net = ctx.load("net")

    def one(item):
        x = net.decode(torch.ones(2, 8, dtype=ctx.dtype))
        how = item.params.how
        if how == "mended":  # it looks after its numbers itself
            x = x.nan_to_num(0, 0, 0)
            item.check_finite("page", x)
        if how == "infinite":
            item.check_finite("words", x.nan_to_num(0) + float("inf"))
        if how == "state":
            item.step(1, 2, x)
            item.check_finite("page", x.nan_to_num(0))
        numbers = x.clamp(0, 255)
        return {"page": bytes(numbers.to(torch.uint8).flatten()), "words": str(numbers.mean()), "ids": numbers.long()}

    return one
"""

MANIFEST = """
version = 1
name = "painter"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
[run]
checkpoint_every = 1
[[stage]]
name = "draw"
uses = "painter.draw"
[[item]]
id = "plain"
[[item]]
id = "mended"
how = "mended"
[[item]]
id = "infinite"
how = "infinite"
[[item]]
id = "state"
how = "state"
"""


@pytest.fixture
def painter(project: Project) -> Project:
    project.plugin("painter", PLUGIN)
    project.write("packages/painter_net.py", NET)
    project.write("painter.toml", MANIFEST)
    folder = project.folder / "model/net"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({}))
    save_file(
        {"head.weight": torch.full((8, 8), 1e5), "head.bias": torch.ones(8)}, folder / "model.safetensors"
    )
    return project


def test_an_item_fails_though_its_stage_hides_what_it_was_made_of(painter: Project) -> None:
    weights = painter.folder / "model/net/model.safetensors"
    save_file({"head.weight": torch.ones(8, 8), "head.bias": torch.full((8,), torch.nan)}, weights)

    outcome = painter.runner("run", "painter.toml", "--json")

    assert outcome.code == 1, outcome
    errors = {e["item"]: e["error"] for e in outcome.of("item_finished")}
    assert errors.keys() == {"plain", "mended", "infinite", "state"}
    assert errors["mended"] is None
    assert errors["state"] is None
    assert "'net' returned NaN or infinite values, computed in float32" in errors["plain"]
    assert "weights are damaged" in errors["plain"]
    assert "'words' would be made of NaN or infinite values" in errors["infinite"]
    # a state that cannot be gone on from is not kept, and that is no secret
    (warning,) = outcome.of("warning")
    assert (warning["kind"], warning["item"]) == ("state_not_finite", "state")


def test_a_dtype_that_is_too_small_is_reported_with_those_that_are_not(painter: Project) -> None:
    half = painter.runner("run", "painter.toml", "--json", "--set", "stage.draw.dtype=float16")
    errors = {e["item"]: e["error"] for e in half.of("item_finished")}
    assert (half.code, errors["mended"]) == (1, None), half
    for item in ("plain", "infinite"):  # it is infinite, where all that is left of that are bytes
        assert 'set dtype = "float32" or "bfloat16"' in errors[item]
    assert painter.runner("run", "painter.toml", "--set", "stage.draw.dtype=bfloat16").code == 1  # "infinite"
    whole = painter.runner("run", "painter.toml", "--json")
    assert [e["item"] for e in whole.of("item_finished") if e["error"]] == ["infinite"], whole


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e5m2]
)
def test_every_dtype_can_be_looked_at(dtype: torch.dtype) -> None:
    numbers = torch.full((3, 50_000), 2.0).to(dtype)  # in float16, their sum is infinite
    assert is_finite(numbers)
    assert is_finite(numbers[:0])
    for value in (float("nan"), float("inf"), -float("inf")):
        spoilt = numbers.clone()
        spoilt[1, 7] = torch.tensor(value).to(dtype)
        assert not is_finite(spoilt)
        assert not is_finite(spoilt.T)
    assert is_finite(torch.tensor([1, 2]))
