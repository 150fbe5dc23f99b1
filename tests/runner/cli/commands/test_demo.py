"""`runner demo`: a plugin's manifest is written into the current folder and run, and no file is lost."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import toy_plugin

if TYPE_CHECKING:
    from project import Project

SHOW = """
from runner.api import Demo, hookimpl

RUNNER_API = 1

@hookimpl
def runner_demos():
    return [{demos}]
"""
WORDS = 'Demo("words", "manifests/words.toml")'


def show(project: Project, *demos: str, text: str | None = toy_plugin.MANIFEST, name: str = "show") -> None:
    """Install a plugin that is a package with a manifest in it, and has demos."""
    project.plugin(name, SHOW.format(demos=", ".join(demos)))
    module = project.packages / f"{name}.py"
    project.write(f"packages/{name}/__init__.py", module.read_text())
    module.unlink()
    sys.modules.pop(name, None)  # another test's
    if text is not None:
        project.write(f"packages/{name}/manifests/words.toml", text)


def test_it_is_written_and_run_and_the_second_time_there_is_nothing_to_do(toy: Project) -> None:
    show(toy, WORDS)

    first = toy.runner("demo", "words")
    second = toy.runner("demo", "words")

    assert (first.code, second.code) == (0, 0), (first, second)
    assert (toy.folder / "words.toml").read_text() == toy_plugin.MANIFEST
    assert len(toy.outputs("toy")) == 4  # two texts, each with what it was made from
    assert "wrote words.toml" in first.stderr
    assert "wrote" not in second.stderr
    assert "nothing to do" in second.stderr


def test_json_is_the_events_of_the_run(toy: Project) -> None:
    show(toy, WORDS)
    outcome = toy.runner("demo", "words", "-o", "mine/other.toml", "--runs-dir", "elsewhere", "--json")
    assert outcome.code == 0, outcome
    assert outcome.of("run_started")[0]["manifest"] == str(toy.folder / "mine/other.toml")
    (end,) = outcome.of("run_finished")
    assert end["exit_code"] == 0
    assert all("elsewhere/toy/outputs/" in path for path in end["outputs"])


def test_another_file_in_its_place_is_not_overwritten(toy: Project) -> None:
    show(toy, WORDS)
    mine = toy.write("words.toml", "# mine")

    refused = toy.invoke("demo", "words", "--json")

    assert refused.code == 2, refused
    assert "`runner run words.toml` runs it as it is" in refused.stderr
    assert [(e["event"], e["exit_code"]) for e in refused.events] == [("run_finished", 2)]
    assert mine.read_text() == "# mine"
    assert not (toy.folder / "runs").exists()
    assert toy.runner("demo", "words", "--force").code == 0
    assert mine.read_text() == toy_plugin.MANIFEST


def test_where_there_are_several_one_is_named(toy: Project) -> None:
    show(toy, WORDS, 'Demo("more", "manifests/words.toml")')
    for arguments, words in (
        ((), "several demos, name one: flux, more, words"),
        (("word",), "there is no demo 'word'; did you mean 'words'? (there are: flux, more, words)"),
    ):
        refused = toy.invoke("demo", *arguments)
        assert refused.code == 2, refused
        assert words in refused.stderr
    assert not (toy.folder / "words.toml").exists()


def test_a_demo_that_its_package_lacks_is_the_plugins_fault(toy: Project) -> None:
    show(toy, WORDS, text=None)
    refused = toy.invoke("demo", "words")
    assert refused.code == 4, refused
    assert "the demo 'words' of plugin 'show' (from show-plugin) cannot be read" in refused.stderr


@pytest.mark.parametrize(
    ("demo", "words"),
    [
        ("'words.toml'", "runner_demos returned 'words.toml', which is not a Demo"),
        ('Demo("words", "../words.toml")', "path is not inside the plugin's folder: '../words.toml'"),
        ('Demo("words", "words.toml", None)', "summary is not a string: None"),
    ],
)
def test_a_plugin_whose_demos_break_the_contract_is_set_aside(toy: Project, demo: str, words: str) -> None:
    show(toy, demo)
    listed = json.loads(toy.invoke("plugins", "list", "--json").stdout)
    assert [broken["name"] for broken in listed["broken"]] == ["show"]
    assert words in listed["broken"][0]["reason"]
