"""``runner explain``: why each item would run at each stage, or not, part by part."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import toy_plugin
from project import Project

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = (
    toy_plugin.STAGES
    + """
[[item]]
id = "fox"
prompt = "a fox"
steps = 20
[[item]]
id = "owl"
prompt = "an owl"
"""
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("ran"))
    project.plugin("toy", toy_plugin.TOY)
    project.write("toy.toml", MANIFEST)
    outcome = project.runner("run", "toy.toml")
    assert outcome.code == 0, outcome
    return project.folder


@pytest.fixture
def toy(ran: Path, tmp_path: Path) -> Project:
    """A project whose two items are made."""
    shutil.copytree(ran, tmp_path / "copy")
    return Project(tmp_path / "copy")


def explain(project: Project, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    before = project.files()
    outcome = project.invoke("explain", "toy.toml", "--json", *arguments)
    assert outcome.code == 0, outcome
    assert project.files() == before
    items = json.loads(outcome.stdout)["items"]
    return {(item["item"], one["stage"]): one for item in items for one in item["stages"]}


def changes(one: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(change["part"], change["from"], change["to"]) for change in one["differences"]]


def test_what_is_there_is_there(toy: Project) -> None:
    explained = explain(toy)
    assert {one["state"] for one in explained.values()} == {"there"}
    assert set(explained) == {(item, stage) for item in ("fox", "owl") for stage in ("make", "write")}
    shutil.rmtree(toy.folder / "runs/toy/handoff")
    assert explain(toy)["fox", "make"]["state"] == "not needed"


def test_a_change_is_shown_part_by_part_against_the_same_item(toy: Project) -> None:
    toy.write("toy.toml", MANIFEST.replace("steps = 20", "steps = 28\nseed = 3"))
    for lost in ("", "runs/toy/handoff"):  # without hand-offs, the outputs know what came before them
        shutil.rmtree(toy.folder / lost) if lost else None
        explained = explain(toy)
        assert [explained["fox", "make"][name] for name in ("state", "reason")] == ["to make", "not made yet"]
        assert explained["fox", "make"]["against"]["item"] == "fox"
        assert changes(explained["fox", "make"]) == [("params.seed", 0, 3), ("params.steps", 20, 28)]
        assert [part for part, _, _ in changes(explained["fox", "write"])] == [
            "inputs.caption",
            "inputs.numbers",
        ]
        assert explained["owl", "write"]["state"] == "there"
    shown = toy.invoke("explain", "toy.toml", "--item", "fox", "--stage", "make")
    assert "steps: 20 -> 28\n" in shown.stdout, shown
    assert "owl" not in shown.stdout
    assert "write" not in shown.stdout


def test_a_new_item_is_compared_with_the_nearest_of_the_stage(toy: Project) -> None:
    toy.write("toy.toml", f'{MANIFEST}[[item]]\nid = "elk"\nprompt = "an elk"\nsteps = 20\n')
    explained = explain(toy)["elk", "make"]
    assert explained["against"]["item"] == "fox"
    assert changes(explained) == [("params.prompt", "a fox", "an elk")]


def test_a_stage_that_changed_and_what_is_forced_or_damaged(toy: Project) -> None:
    explained = explain(toy, "--set", "stage.make.save_dtype=bfloat16", "--set", "stage.write.with.ending=!")
    assert ("save_dtype", None, "bfloat16") in changes(explained["owl", "make"])
    assert ("params.ending", ".", "!") in changes(explained["owl", "write"])
    forced = explain(toy, "--fresh", "write")
    assert forced["fox", "write"]["reason"] == "forced by --fresh"
    assert forced["fox", "make"]["state"] == "there"
    for handoff in (toy.folder / "runs/toy/handoff/make").iterdir():
        handoff.write_bytes(handoff.read_bytes()[:-1])
    damaged = explain(toy, "--fresh", "write")["fox", "make"]
    assert (damaged["state"], damaged["reason"]) == ("to make", "its hand-off is damaged")


def test_nothing_was_made_yet(toy: Project) -> None:
    shutil.rmtree(toy.folder / "runs")
    explained = explain(toy)["fox", "make"]
    assert (explained["state"], explained["reason"], explained["against"]) == (
        "to make",
        "not made yet",
        None,
    )
    assert not (toy.folder / "runs").exists()


def test_versions_that_are_others_now(toy: Project) -> None:
    page = next((toy.folder / "runs/toy/outputs").glob("fox-*.txt.runner.json"))
    page.write_text(page.read_text().replace('"torch": "', '"torch": "0.'))
    explained = explain(toy)["fox", "write"]
    assert explained["state"] == "there"
    assert [part for part, _, _ in changes(explained)] == ["versions.torch"]
    shown = toy.invoke("explain", "toy.toml")
    assert "there, made with other versions:" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--item", "fix"), "--item fix: there is no such item; did you mean 'fox'?"),
        (("--stage", "mak"), "--stage mak: there is no such stage; did you mean 'make'?"),
    ],
)
def test_a_name_that_is_none_is_exit_2(toy: Project, arguments: tuple[str, str], words: str) -> None:
    outcome = toy.invoke("explain", "toy.toml", *arguments)
    assert outcome.code == 2, outcome
    assert words in outcome.stderr


def test_a_model_that_is_not_hashed_leaves_keys_pending_and_is_not_hashed(toy: Project) -> None:
    """The demo model: what does not depend on it is compared all the same."""
    toy.write(
        "toy.toml",
        'version = 1\nname = "demo"\n[model]\nsource = "plugin:flux/demo"\n[[stage]]\n'
        'name = "encode"\nuses = "flux.encode"\n[batch]\nprompts = ["a"]\n',
    )
    explained = explain(toy)["a", "encode"]
    assert (explained["state"], explained["key"], explained["against"]) == ("pending", None, None)
    assert "pending: a model is not here, or not hashed yet" in toy.invoke("explain", "toy.toml").stdout
    assert not (toy.folder / "cache" / "hashes.json").exists()
