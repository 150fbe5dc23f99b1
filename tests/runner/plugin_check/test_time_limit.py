"""Stages that exceed the time limit: the message has the item, the plugin's own line, and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

PLUGIN = """
from runner.api import Stage, Text, hookimpl
RUNNER_API = 1

@hookimpl
def runner_stages():
    return [
        Stage(name="drowsy.quick", outputs=(Text("t"),), start="drowsy_work:start_quick"),
        Stage(name="drowsy.slow", outputs=(Text("u"),), start="drowsy_work:start_slow"),
    ]
"""
# it waits in the code of another module, like a stage that waits for a library
WORK = """
import threading


def rest(seconds):
    threading.Event().wait(seconds)


def start_quick(ctx):
    return lambda item: {"t": "quick"}


def start_slow(ctx):
    def one(item):
        rest(0.1)
        rest(60)
        return {"u": "slow"}
    return one
"""
MANIFEST = """
version = 1
name = "drowsy"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "morning"
uses = "drowsy.slow"
[[item]]
id = "first"
"""


@pytest.fixture
def drowsy(project: Project) -> Project:
    project.plugin("drowsy", PLUGIN)
    project.write("packages/drowsy_work.py", WORK)
    project.write("drowsy.toml", MANIFEST)
    return project


def test_a_slow_stage_is_reported_with_its_item_and_line(drowsy: Project, check: Callable[..., Any]) -> None:
    outcome, found = check("drowsy", "--timeout", "6")
    assert outcome.code == 4, outcome
    runs = found["drowsy.slow"]["runs"]
    assert runs["message"] == "item 'one': not finished after 6 s: drowsy_work.py, line 5 in rest", outcome
    assert "--timeout SECONDS" in runs["advice"]
    frames = [line for line in runs["log"].splitlines() if "drowsy_work.py" in line]
    assert [frame.partition(" line ")[2] for frame in frames] == ["5 in rest", "15 in one"]
    assert "runner/plugin_check" not in runs["log"]
    assert {verdict["status"] for verdict in found["drowsy.quick"].values()} == {"ok"}


def test_a_slow_item_of_a_manifest(drowsy: Project, check: Callable[..., Any]) -> None:
    outcome, found = check("drowsy", "--timeout", "6", "--manifest", "drowsy.toml")
    assert outcome.code == 4, outcome
    runs = found["drowsy.toml"]["runs"]
    expected = (
        "item 'first' failed in stage 'morning': not finished after 6 s: drowsy_work.py, line 5 in rest"
    )
    assert runs["message"] == expected
    assert "--timeout SECONDS" in runs["advice"]
    assert "runner/" not in runs["log"]
