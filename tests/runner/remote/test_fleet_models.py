"""Models over several nodes: streamed in groups, resident, with files in and pictures out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from chaos.batch import MANIFEST, PLACED, items
from checkpoints import make_flux
from lora_files import FLUX, TEXT, write_kohya_flux, write_lora
from nodes import ODD, SENT, digests, made, nodes_of
from plugins.flux.test_loras import MANIFEST as STYLED

if TYPE_CHECKING:
    from project import Project


@pytest.mark.parametrize("placed", [[], PLACED], ids=["resident", "streamed"])
def test_pictures_of_three_nodes_are_those_of_one_machine(project: Project, placed: list[str]) -> None:
    """Streamed, items run in groups of what has come: which those are depends on the nodes."""
    project.plugin("away", ODD)
    project.write("demo.toml", MANIFEST)
    project.write("items.jsonl", "".join(f"{json.dumps(item)}\n" for item in items()[:10]))
    (project.folder / "flags").mkdir()
    project.environment |= {**SENT, "TOY_FLAGS": str(project.folder / "flags")}
    here = project.runner("run", "demo.toml", *placed)
    assert here.code == 0, here
    before = digests(project.folder / "runs/demo")
    (project.folder / "runs").rename(project.folder / "local")
    nodes = ["--executor", "away", "--set", "executor.nodes=3"]
    outcome = project.runner("run", "demo.toml", "--json", *placed, *nodes)
    assert outcome.code == 0, outcome
    assert digests(project.folder / "runs/demo") == before
    assert made(outcome) == sorted({*made(outcome)})
    assert len(nodes_of(outcome)) == 3


def test_adapters_of_each_item_are_those_of_one_machine(project: Project) -> None:
    model = make_flux(project.folder / "model")
    write_lora(project.folder / "style.safetensors", model, {"transformer": FLUX, "text_encoder": TEXT})
    write_kohya_flux(project.folder / "anna.safetensors", model)
    project.write("styled.toml", STYLED.format(placement="resident"))
    project.plugin("away", ODD)
    (project.folder / "flags").mkdir()
    project.environment |= {**SENT, "TOY_FLAGS": str(project.folder / "flags")}
    here = project.runner("run", "styled.toml")
    assert here.code == 0, here
    before = digests(project.folder / "runs/styled")
    (project.folder / "runs").rename(project.folder / "local")
    nodes = ["--executor", "away", "--set", "executor.nodes=2"]
    outcome = project.runner("run", "styled.toml", "--json", *nodes)
    assert outcome.code == 0, outcome
    assert digests(project.folder / "runs/styled") == before
