"""Model files that change behind the command's back: no result of others is taken for theirs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import weighty_plugin

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

TWO_STAGES = """
[[stage]]
name = "again"
uses = "weighty.run"
[stage.with]
behave = "{}"
"""
REWRITING = """
    if p.behave == "rewrite":
        weights = pathlib.Path("model/net/model.safetensors")
        with weights.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")
        os.utime(weights, (1, 1))
    hold = []
"""
REPLACING = """
    if p.behave == "replace" and not pathlib.Path("replaced").exists():
        pathlib.Path("replaced").touch()
        weights = pathlib.Path("model/net/model.safetensors")
        other = weights.with_name("other")
        other.write_bytes(weights.read_bytes()[:-1] + b"?")
        other.replace(weights)
        os.kill(os.getpid(), 9)
    hold = []
"""
SLOWLY = """
def start(ctx):
    net = ctx.load("net")
"""
MEANWHILE = """
def start(ctx):
    weights = pathlib.Path("model/net/model.safetensors")
    other = weights.with_name("other")
    other.write_bytes(weights.read_bytes()[:-1] + b"?")
    other.replace(weights)
    net = ctx.load("net")
"""


@pytest.fixture
def weighty(project: Project) -> Project:
    weighty_plugin.install(project, width=32, depth=4)
    os.utime(weights(project), (1, 1))
    return project


def weights(project: Project) -> Path:
    return project.folder / "model/net/model.safetensors"


def test_files_of_the_same_size_and_time_are_not_the_same_files(weighty: Project) -> None:
    assert weighty.runner("run", "weighty.toml").code == 0
    assert "nothing to do" in weighty.runner("run", "weighty.toml").stderr
    data = weights(weighty).read_bytes()
    weights(weighty).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as `cp -p` does
    os.utime(weights(weighty), (1, 1))
    again = weighty.runner("run", "weighty.toml", "--json")
    assert again.code == 0, again
    assert len(again.of("item_finished")) == 2


def test_files_that_change_between_two_stages_end_the_run(weighty: Project) -> None:
    weighty.write("packages/weighty_net.py", weighty_plugin.NET.replace("    hold = []\n", REWRITING))
    first, _, items = weighty_plugin.MANIFEST.partition("[[item]]")
    first = f'{first}[stage.with]\nbehave = "rewrite"\n'
    weighty.write("weighty.toml", f"{first}{TWO_STAGES.format('well')}[[item]]{items}")
    outcome = weighty.runner("run", "weighty.toml", "--json")
    assert outcome.code == 8, outcome
    assert "the model's files were changed since the run began" in outcome.stderr
    assert [event["stage"] for event in outcome.of("stage_started")] == ["run"]


@pytest.mark.parametrize(
    ("old", "new", "started"),
    [("    hold = []\n", REPLACING, ["first"]), (SLOWLY, MEANWHILE, [])],
    ids=["before another worker", "while a worker starts"],
)
def test_no_worker_makes_items_with_files_that_were_replaced(
    weighty: Project, old: str, new: str, started: list[str]
) -> None:
    """Their keys are of what the files were when the run began."""
    assert old in weighty_plugin.NET
    weighty.write("packages/weighty_net.py", weighty_plugin.NET.replace(old, new))
    first, _, items = weighty_plugin.MANIFEST.partition("[[item]]")
    weighty.write("weighty.toml", f'{first}[stage.with]\nbehave = "replace"\n[[item]]{items}')
    outcome = weighty.runner("run", "weighty.toml", "--json")
    assert outcome.code == 8, outcome
    assert "the model's files were changed since the run began" in outcome.stderr
    assert [items for event in outcome.of("worker_died") for items in event["items"]] == started
    assert outcome.of("item_finished") == []
