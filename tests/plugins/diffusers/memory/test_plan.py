"""The plan of a diffusers pipeline: what an item takes is measured, once for each size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import tiny_models

if TYPE_CHECKING:
    from project import Project

MANIFEST = """
version = 1
name = "tiny"
[model]
source = "./flux"
[with]
height = 64
width = 64
steps = 2
max_sequence_length = 16
[[stage]]
name = "encode"
uses = "diffusers.encode"
[[stage]]
name = "denoise"
uses = "diffusers.denoise"
[[stage]]
name = "decode"
uses = "diffusers.decode"
[[item]]
prompt = "a fox in the snow"
[[item]]
prompt = "a cat in the rain"
"""
MEASURED = "".join(f"measuring shapes of stage '{stage}'...\n" for stage in ("encode", "denoise", "decode"))


def test_a_plan_has_activations_and_measures_once(project: Project) -> None:
    tiny_models.checkpoint("flux", project.folder)
    project.write("tiny.toml", MANIFEST)
    first = project.invoke("plan", "tiny.toml", "--json")
    assert first.stderr == MEASURED
    stages = json.loads(first.stdout)["stages"]
    assert all(stage["activations"] > 0 for stage in stages)
    assert [stage["output_bytes"] > 0 for stage in stages] == [True] * 3

    again = project.invoke("plan", "tiny.toml", "--json")
    assert again.stderr == ""
    assert [s["activations"] for s in json.loads(again.stdout)["stages"]] == [
        s["activations"] for s in stages
    ]

    larger = project.invoke("plan", "tiny.toml", "--json", "--set", "with.height=128")
    assert larger.stderr == MEASURED
    grown = json.loads(larger.stdout)["stages"]
    # twice the pixels; the text's share stays
    assert grown[1]["activations"] == pytest.approx(2 * stages[1]["activations"], rel=0.2)
    assert grown[2]["activations"] == pytest.approx(2 * stages[2]["activations"], rel=0.2)


def test_the_remedy_for_a_misfit_is_measured_too(project: Project) -> None:
    tiny_models.checkpoint("flux", project.folder)
    project.write("tiny.toml", MANIFEST)
    sizes = [
        "--set",
        "with.height=1024",
        "--set",
        "with.width=1024",
        "--set",
        "stage.decode.budget.ram=420MiB",
    ]
    planned = project.invoke("plan", "tiny.toml", *sizes, "--set", "stage.denoise.budget.ram=8GiB")
    assert planned.code == 5, planned
    assert "tiling = 512 in [stage.with]" in planned.stderr
