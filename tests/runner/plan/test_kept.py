"""Keeping freed memory is worth some room, but never a second pass over a text encoder's weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from large import make_full_flux
from project import Project

MANIFEST = """
version = 1
name = "kept"
[model]
source = "./model"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
dtype = "bfloat16"
[stage.with]
max_sequence_length = 512
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
[stage.with]
steps = 20
height = 512
width = 512
[[stage]]
name = "decode"
uses = "flux.decode"
[batch]
prompts = ["a red circle"]
seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
"""
KEPT = "freed memory kept for what comes next"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("kept"))
    make_full_flux(project.folder / "model", double=1, single=2)
    project.write("kept.toml", MANIFEST)
    return project


def planned(project: Project, stage: str, *settings: str) -> dict[str, Any]:
    sets = [word for setting in settings for word in ("--set", setting)]
    outcome = project.runner("plan", "kept.toml", "--json", *sets)
    return next(found for found in json.loads(outcome.stdout)["stages"] if found["stage"] == stage)


def test_it_is_kept_where_there_is_room(published: Project) -> None:
    roomy = planned(published, "diffuse", "budget.ram=12GiB")
    assert roomy["placement"] == "resident"
    kept = roomy["parts"]["ram"][KEPT]
    assert kept == roomy["activations"]
    without = (roomy["predicted"]["ram"] - kept // 2) >> 20
    tight = planned(published, "diffuse", f"budget.ram={without}MiB")
    assert tight["placement"] == "resident"
    assert KEPT not in tight["parts"]["ram"]


def test_it_is_not_kept_where_streaming_is_set_without_a_budget(published: Project) -> None:
    """Such a stage is meant to hold little."""
    assert KEPT not in planned(published, "diffuse", "stage.diffuse.placement=stream")["parts"]["ram"]


def test_after_out_of_memory_the_same_blocks_stream_for_fewer_items(published: Project) -> None:
    streamed = planned(published, "diffuse", "stage.diffuse.placement=stream")
    assert streamed["group"] > 1
    assert "stream" in streamed["lower"]


def test_all_prompts_share_the_text_encoders_pass_where_they_can(published: Project) -> None:
    for ram, room in (("2.5GiB", False), ("6GiB", True)):
        encode = planned(published, "encode", f"budget.ram={ram}")
        assert encode["group"] == 16
        assert (KEPT in encode["parts"]["ram"]) == room
