"""What a key is made of: all that changes an output, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import toy_plugin
from tiny_models import checkpoint

from runner.cli.pipelines import open_pipeline
from runner.work.differences import differences, parts
from runner.work.keys import Prints, keys_of

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project


def keys(
    project: Project, *sets: str, prints: tuple[Prints, ...] = (), version: int = 1
) -> dict[str, list[str]]:
    """Each item's keys by id."""
    source = toy_plugin.TOY.replace('name="toy.make",', f'name="toy.make", version={version},')
    project.plugin("toy", source)
    sys.modules.pop("toy", None)
    project.write("toy.toml", toy_plugin.BEHAVING.format("well"))
    with project.as_environment():
        pipeline = open_pipeline(project.folder / "toy.toml", sets)
        return {item: [k.key for k in keyed] for item, keyed in keys_of(pipeline, prints).items()}


def test_items_and_stages_have_keys_of_their_own(project: Project) -> None:
    found = keys(project)
    everything = [key for of_item in found.values() for key in of_item]
    assert len(set(everything)) == len(everything) == 4
    assert all(len(key) == 64 for key in everything)
    assert keys(project) == found


@pytest.mark.parametrize(
    "sets",
    [
        ("stage.make.with.steps=5",),
        ("stage.make.dtype=bfloat16",),
        ("stage.make.save_dtype=bfloat16",),
        ("item.item.prompt=other",),
    ],
)
def test_what_changes_an_output_changes_its_key_and_those_after_it(
    project: Project, sets: tuple[str, ...]
) -> None:
    before, after = keys(project)["item"], keys(project, *sets)["item"]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_so_do_a_stages_version_and_its_model(project: Project) -> None:
    before = keys(project)["item"]
    for after in (
        keys(project, version=2)["item"],
        keys(project, prints=(Prints("print"), Prints()))["item"],
    ):
        assert before[0] != after[0]
        assert before[1] != after[1]


def test_what_is_changed_later_changes_nothing_before(project: Project) -> None:
    before, after = keys(project)["item"], keys(project, "stage.write.with.ending=!")["item"]
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    "setting", ["budget.ram=9GiB", "stage.make.placement=resident", "name=y", "stage.make.retries=3"]
)
def test_what_changes_no_output_is_in_no_key(project: Project, setting: str) -> None:
    assert keys(project, setting) == keys(project)


def test_nor_is_the_items_id_nor_a_default_that_is_written(project: Project) -> None:
    assert keys(project, "item.item.id=other")["other"] == keys(project)["item"]
    assert keys(project, "stage.make.with.steps=2") == keys(project)  # its default


def test_stages_of_the_same_ingredients_are_reported_apart(project: Project) -> None:
    renamed = toy_plugin.TOY.replace('"toy.make"', '"toy.made"')
    before = keys(project)["item"]
    project.plugin("toy", renamed)
    sys.modules.pop("toy", None)
    project.write("toy.toml", toy_plugin.BEHAVING.format("well").replace("toy.make", "toy.made"))
    with project.as_environment():
        pipeline = open_pipeline(project.folder / "toy.toml")
    assert keys_of(pipeline)["item"][0].key != before[0]


def test_what_a_key_is_made_of_is_compared_by_name(project: Project, tmp_path: Path) -> None:
    model = checkpoint("sd15", tmp_path)
    stages = "".join(
        f'[[stage]]\nuses = "diffusers.{s}"\nname = "{s}"\n' for s in ("encode", "denoise", "decode")
    )
    item = '[[item]]\nprompt = "a"\nheight = 64\nwidth = 64\n'
    project.write("sd.toml", f'version = 1\nname = "sd"\n[model]\nsource = "{model}"\n{stages}{item}')
    with project.as_environment():
        old, new = (
            keys_of(open_pipeline(project.folder / "sd.toml", [f"stage.decode.dtype={dtype}"]))["a"][0]
            for dtype in ("float32", "bfloat16")
        )
    assert old.key != new.key
    found = differences(parts(old.key_inputs), parts(new.key_inputs))
    assert [str(one) for one in found] == ["dtype of vae: float32 -> bfloat16"]
