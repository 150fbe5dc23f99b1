"""Broken manifests and item files: each with its message, its place and its exit code, and nothing written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from broken_manifests import GOOD, TABLES

if TYPE_CHECKING:
    from project import Project


@pytest.mark.parametrize("case", TABLES)
def test_a_broken_manifest_is_refused_with_its_place(toy: Project, case: str) -> None:
    old, new, place, words = TABLES[case]
    assert old in GOOD
    toy.write("toy.toml", GOOD.replace(old, new, 1))
    before = toy.files()

    outcome = toy.invoke("run", "toy.toml")

    assert outcome.code == 3, outcome
    assert f"toy.toml:{place}" in outcome.stderr, outcome
    assert words in outcome.stderr, outcome
    assert "Traceback" not in outcome.stderr
    assert toy.files() == before


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GOOD.encode("utf-16"), "is UTF-16"),
        (b"\x7fELF\0\0\0", "is a binary file"),
        (b'name = "\xff"', "toy.toml:1:9: is not UTF-8 here"),
        (b"version = " + b"[" * 5000, "toy.toml"),
        (b"", "'version' is missing"),
    ],
)
def test_a_manifest_that_is_no_text_is_refused(toy: Project, data: bytes, words: str) -> None:
    toy.write("toy.toml", data)
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 3, outcome
    assert words in outcome.stderr, outcome
    assert "Traceback" not in outcome.stderr


def test_a_manifest_that_is_not_there(toy: Project) -> None:
    outcome = toy.invoke("run", "nowhere.toml")
    assert outcome.code == 3
    assert "nowhere.toml: cannot be read: No such file or directory" in outcome.stderr


def test_all_problems_are_shown_at_once_with_line_and_caret(toy: Project) -> None:
    text = (
        GOOD.replace("steps = 2", "\tstesp = 2")
        .replace("[[stage]]", "treads = 2\n[[stage]]", 1)
        .replace('prompts = ["one"]', '[[item]]\nprompt = "a"\nside = 3')
    )
    toy.write("toy.toml", text)

    outcome = toy.invoke("validate", "toy.toml")

    assert "    \tstesp = 2\n    \t^\n" in outcome.stderr, outcome
    assert "unknown key 'treads'; did you mean 'threads'?" in outcome.stderr
    assert "    side = 3\n           ^\n" in outcome.stderr, outcome


def test_a_wrong_element_of_a_list_hides_nothing(toy: Project) -> None:
    toy.write("toy.toml", GOOD.replace("steps = 2", "stesp = 2") + "seeds = [1, -1]\n")
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 3, outcome
    assert "toy.toml:9:1: toy.make has no parameter 'stesp'" in outcome.stderr
    assert "toy.toml:15:13: 'seeds[1]'" in outcome.stderr


@pytest.mark.parametrize("count", [1, 2])
def test_stages_in_single_brackets_are_reported_how_lists_are_written(toy: Project, count: int) -> None:
    one = GOOD.partition('[[stage]]\nname = "write"')[0]
    toy.write("toy.toml", (GOOD if count == 2 else one).replace("[[stage]]", "[stage]"))
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 3, outcome
    assert "write [[stage]]" in outcome.stderr or "as [[stage]]" in outcome.stderr


def test_what_no_item_can_be_set_on_is_a_usage_error(toy: Project) -> None:
    toy.write("toy.toml", GOOD)
    outcome = toy.invoke("validate", "toy.toml", "--set", "item.fox.prompt=a fox")
    assert outcome.code == 2, outcome
    assert "the manifest has no [[item]]" in outcome.stderr
    outcome = toy.invoke("validate", "toy.toml", "--set", "steps=4")
    assert outcome.code == 2, outcome
    assert "it is set as with.steps or stage.make.with.steps" in outcome.stderr
    outcome = toy.invoke("validate", "toy.toml", "--set", "sparkle=4")
    assert "a stage's parameter is stage.NAME.with.sparkle" in outcome.stderr


@pytest.mark.parametrize("command", ["validate", "plan", "explain"])
def test_errors_are_json_too_where_that_was_asked_for(toy: Project, command: str) -> None:
    toy.write("toy.toml", GOOD.replace("steps = 2", "steps = 0"))
    outcome = toy.invoke(command, "toy.toml", "--json")
    reported = json.loads(outcome.stdout)
    assert (reported["ok"], reported["exit_code"], len(reported["problems"])) == (False, 3, 1)


def test_a_run_that_cannot_begin_ends_in_its_events(toy: Project) -> None:
    toy.write("toy.toml", GOOD.replace("steps = 2", "steps = 0"))
    outcome = toy.invoke("run", "toy.toml", "--json")
    (end,) = outcome.events
    assert (end["event"], end["exit_code"], end["outputs"]) == ("run_finished", 3, [])
    assert "greater than or equal to 1" in end["error"]


def test_problems_as_json(toy: Project) -> None:
    toy.write("toy.toml", GOOD.replace("steps = 2", "steps = 0"))
    outcome = toy.invoke("validate", "toy.toml", "--json")
    reported = json.loads(outcome.stdout)
    assert (reported["ok"], reported["exit_code"]) == (False, 3)
    assert [(p["line"], p["column"]) for p in reported["problems"]] == [(9, 9)]


def test_a_good_manifest_is_reported_so(toy: Project) -> None:
    outcome = toy.invoke("validate", "toy.toml", "--json")
    assert json.loads(outcome.stdout) == {
        "ok": True,
        "exit_code": 0,
        "stages": ["make", "write"],
        "items": 2,
    }
