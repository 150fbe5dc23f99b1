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


def test_problems_as_json(toy: Project) -> None:
    toy.write("toy.toml", GOOD.replace("steps = 2", "steps = 0"))
    outcome = toy.invoke("validate", "toy.toml", "--json")
    told = json.loads(outcome.stdout)
    assert (told["ok"], told["exit_code"]) == (False, 3)
    assert [(p["line"], p["column"]) for p in told["problems"]] == [(9, 9)]


def test_a_good_manifest_is_told_so(toy: Project) -> None:
    outcome = toy.invoke("validate", "toy.toml", "--json")
    assert json.loads(outcome.stdout) == {
        "ok": True,
        "exit_code": 0,
        "stages": ["make", "write"],
        "items": 2,
    }
