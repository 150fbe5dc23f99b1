"""Activations that a plugin measures in a child process: once for each size, reported, cached, within a time limit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runner.supervisor.requests import measuring

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

PLUGIN = """
import os
import time
from pydantic import BaseModel
from runner.api import Activations, Measure, Stage, Tensor, hookimpl

RUNNER_API = 1


class Fill(BaseModel):
    prompt: str
    side: int = 1
    behave: str = "well"


@hookimpl
def runner_stages():
    return (
        Stage(
            name="sized.fill",
            params="sized:Fill",
            outputs=(Tensor("numbers"),),
            start="sized:start",
            memory="sized:memory",
        ),
    )


def memory(params, sizes):
    return Measure("sized:measure", [params.side, params.behave])


def measure(params, sizes):
    if params.behave == "fail":
        raise ArithmeticError("no such shape")
    if params.behave == "quick":
        return Activations(7 << 20)
    if params.behave == "killed":
        os.kill(os.getpid(), 9)
    while params.behave == "busy":
        pass
    while params.behave == "hang":
        time.sleep(1)
    import torch

    meta = torch.empty(params.side, params.side, dtype=getattr(torch, sizes.dtype), device="meta")
    return Activations(meta.numel() * meta.itemsize << 20)


def start(ctx):
    import torch

    return lambda item: {"numbers": torch.zeros(item.params.side)}
"""
MANIFEST = """
version = 1
name = "sized"
[[stage]]
name = "fill"
uses = "sized.fill"
"""
MIB = 1 << 20


@pytest.fixture
def sized(project: Project) -> Project:
    project.plugin("sized", PLUGIN)
    return project


def manifest(project: Project, *items: dict[str, Any]) -> Path:
    tables = [
        "\n".join(["[[item]]", *(f"{k} = {json.dumps(v)}" for k, v in item.items()), ""]) for item in items
    ]
    return project.write("sized.toml", MANIFEST + "".join(tables))


def test_each_size_is_measured_once_and_reported(sized: Project) -> None:
    manifest(sized, {"prompt": "a", "side": 2}, {"prompt": "b", "side": 2}, {"prompt": "c", "side": 3})
    first = sized.invoke("plan", "sized.toml", "--json")
    assert first.stderr == "measuring shapes of stage 'fill', 2 sizes...\n"
    (stage,) = json.loads(first.stdout)["stages"]
    assert stage["activations"] == 9 * 4 * MIB

    again = sized.invoke("plan", "sized.toml", "--json")
    assert again.stderr == ""
    assert json.loads(again.stdout)["stages"] == [stage]


def test_a_dtype_is_measured_by_itself(sized: Project) -> None:
    manifest(sized, {"prompt": "a", "side": 2})
    sized.invoke("plan", "sized.toml")
    halved = sized.invoke("plan", "sized.toml", "--json", "--set", "stage.fill.dtype=bfloat16")
    assert "measuring shapes" in halved.stderr
    assert json.loads(halved.stdout)["stages"][0]["activations"] == 4 * 2 * MIB


def test_a_run_emits_an_event(sized: Project) -> None:
    manifest(sized, {"prompt": "a", "side": 2})
    events = [json.loads(line) for line in sized.invoke("run", "sized.toml", "--json").stdout.splitlines()]
    assert [(e["stage"], e["sizes"]) for e in events if e["event"] == "measuring_shapes"] == [("fill", 1)]
    (started,) = [e for e in events if e["event"] == "stage_started"]
    assert started["predicted"]["ram"] > 16 * MIB


def test_a_failure_is_reported_each_time_and_the_rest_is_measured(sized: Project) -> None:
    manifest(sized, {"prompt": "a", "side": 5, "behave": "fail"}, {"prompt": "b", "side": 2})
    reason = "could not be measured, and is not in the plan: ArithmeticError: no such shape\n"
    for times in (1, 2):
        planned = sized.invoke("plan", "sized.toml", "--json")
        assert planned.stderr.endswith(reason)
        assert ("measuring shapes" in planned.stderr) == (times == 1)
        assert json.loads(planned.stdout)["stages"][0]["activations"] is None
    cached = json.loads((sized.folder / "cache/activations.json").read_text())
    assert sorted(map(type, cached.values()), key=str) == [dict, str]


@pytest.mark.parametrize("behave", ["hang", "busy"])
def test_the_time_limit_ends_the_child(sized: Project, monkeypatch: pytest.MonkeyPatch, behave: str) -> None:
    slow = [{"prompt": str(side), "behave": behave, "side": side} for side in (1, 2)]
    manifest(sized, *slow, {"prompt": "a", "behave": "quick"})
    monkeypatch.setattr(measuring, "SECONDS", 1.0)
    planned = sized.invoke("plan", "sized.toml", "--json")
    assert "it took more than 1 s" in planned.stderr
    cached = json.loads((sized.folder / "cache/activations.json").read_text())
    assert [one["peak"] for one in cached.values() if isinstance(one, dict)] == [7 * MIB]


def test_what_another_try_may_measure_is_tried_again(sized: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(sized, {"prompt": "a", "behave": "killed"})
    for _ in range(2):
        planned = sized.invoke("plan", "sized.toml", "--json")
        assert "measuring shapes" in planned.stderr
        assert "its process ended with exit code -9" in planned.stderr
    monkeypatch.setattr(measuring, "STARTING", 0.0)
    manifest(sized, {"prompt": "a", "behave": "quick"})
    assert "its process took more than 0 s to start" in sized.invoke("plan", "sized.toml").stderr
    monkeypatch.undo()
    planned = sized.invoke("plan", "sized.toml", "--json")
    assert json.loads(planned.stdout)["stages"][0]["activations"] == 7 * MIB
