"""All errors are reported at once: tables, parameters, items, plugins and models, each with its position."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import runner_flux
from broken_manifests import GOOD

if TYPE_CHECKING:
    from project import Project

DEMO = Path(runner_flux.__file__).parent / "demo"

EVERYTHING = """\
version = 1
name = demo
[model]
source = "./nowhere"
[budget]
device = "cpu"
vram = 8
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 1000
[[stage]]
uses = "flux.diffuse"
timeout = "soon"
[stage.with]
heigth = 128
[[stage]]
name = "decode"
uses = "flux.decode"
[stage.with]
tiling = "never"
[stage.model]
source = "./broken"
[batch]
file = "absent.jsonl"
seeds = [-1]
[[item]]
id = "a/b"
prompt = "a fox"
steps = 0
"""


def places(project: Project, *arguments: str) -> dict[str, str]:
    """What is wrong, by line and column (or by the option that it stands in)."""
    outcome = project.invoke("validate", "all.toml", "--json", *arguments)
    found = json.loads(outcome.stdout)["problems"]
    return {f"{p['line']}:{p['column']}" if p["line"] else p["file"]: p["message"] for p in found}


def test_tables_parameters_items_and_models_are_reported_together(project: Project) -> None:
    project.write("all.toml", EVERYTHING)
    shutil.copytree(DEMO, project.folder / "broken")
    (project.folder / "broken/vae/diffusion_pytorch_model.safetensors").write_bytes(b"nothing of the kind")
    found = places(project, "--set", "stage.decode.with.stesp=3", "--set", "budget.gpu=1", "--set", "x")
    assert list(found) == [
        "--set budget.gpu=1",
        "--set stage.decode.with.stesp=3",
        "--set x",
        *("2:8", "4:10", "7:8", "12:23", "13:3", "15:11", "17:1", "22:10", "24:10", "26:8", "27:10"),
        *("29:6", "31:9"),
    ], found
    assert 'text needs quotes: "demo"' in found["2:8"]
    assert "there is no model folder" in found["4:10"]
    assert "'name' is missing" in found["13:3"]
    assert "did you mean 'height'?" in found["17:1"]
    assert "diffusion_pytorch_model.safetensors is damaged" in found["24:10"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version = 1\n", "", {":", "8:1"}),
        ('name = "toy"\n', "", {":", "8:1"}),
        ('uses = "toy.write"', "dtype = 3", {"9:1", "10:3", "12:9"}),
        ('name = "make"', 'name = "a name with spaces"', {"6:8", "9:1"}),
        ("[budget]", "[model]\nrevision = 3\n[budget]", {"11:1", "3:2", "4:12"}),
        ('uses = "toy.make"', 'uses = "toy.make"\ndevice_map = { net = 1.5 }', {"8:22", "10:1"}),
    ],
)
def test_what_a_table_lacks_hides_nothing(toy: Project, old: str, new: str, expected: set[str]) -> None:
    toy.write("all.toml", GOOD.replace("steps = 2", "stesp = 2").replace(old, new, 1))
    found = {place if place[0].isdigit() else ":" for place in places(toy)}
    assert found == expected


def test_stages_of_an_absent_plugin_hide_nothing_and_raise_no_false_alarm(toy: Project) -> None:
    """What such a stage takes and leaves is not known: neither its inputs nor fields of items are judged."""
    text = GOOD.replace('uses = "toy.make"', 'uses = "gone.make"').replace("steps = 2", "anything = 2")
    toy.write("all.toml", text.replace('"toy.write"', '"toy.write"\n[stage.with]\nending = 3'))
    found = places(toy)
    assert set(found) == {"7:8", "14:10"}, found
    assert toy.invoke("validate", "all.toml").code == 3
    toy.write("all.toml", text + "[[item]]\nprompt = 'x'\nsparkle = 3\n")
    assert toy.invoke("validate", "all.toml").code == 4


def test_models_that_are_missing_are_exit_8_and_each_at_its_place(project: Project) -> None:
    text = EVERYTHING.replace("name = demo", 'name = "demo"').replace("vram = 8\n", "")
    for wrong in (
        "timeout = ",
        "heigth = ",
        "max_",
        "tiling = ",
        'file = "',
        "seeds = ",
        "steps = ",
        'id = "',
    ):
        text = "\n".join(line for line in text.split("\n") if not line.startswith(wrong))
    text = text.replace('uses = "flux.diffuse"', 'name = "diffuse"\nuses = "flux.diffuse"')
    project.write("all.toml", text)
    shutil.copytree(DEMO, project.folder / "broken")
    shutil.rmtree(project.folder / "broken/vae")
    for command in ("validate", "plan", "explain", "run"):
        outcome = project.invoke(command, "all.toml")
        assert outcome.code == 8, outcome
        assert f"all.toml:4:10: there is no model folder {project.folder / 'nowhere'}" in outcome.stderr
        assert "has no folder 'vae'" in outcome.stderr
