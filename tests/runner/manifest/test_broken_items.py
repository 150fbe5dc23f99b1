"""Broken item files: each with its message, its place and its exit code, and nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_plugin import STAGES

if TYPE_CHECKING:
    from project import Project


ITEM_FILES: dict[str, tuple[str, bytes, str, str]] = {
    "no json": ("a.jsonl", b'{"prompt": "a"}\n{"prompt" "b"}\n', ":2:11", "not JSON"),
    "no object": ("a.jsonl", b"[1, 2]\n", ":1:1", "each line must be an object"),
    "json type": ("a.jsonl", b'{"prompt": 3}\n', ":1:2", "'prompt' must be a string, not 3"),
    "deep json": ("a.jsonl", b'{"prompt": ' + b"[" * 100_000 + b"\n", ":1:1", "not JSON"),
    "unknown json key": (
        "a.jsonl",
        b'{"prompt": "a", "sede": 1}\n',
        ":1:17",
        "did you mean 'seed'?",
    ),
    "bad id in json": ("a.jsonl", b'{"prompt": "a", "id": "a/b"}\n', ":1:17", "cannot be a file name"),
    "id is no string": (
        "a.jsonl",
        b'{"prompt": "a", "id": 7}\n',
        ":1:17",
        "'id' must be a string: write \"7\", not 7",
    ),
    "csv column": ("a.csv", b"prompt,sede\na,1\nb,2\n", ":1:8", "unknown key 'sede'"),
    "csv number": ("a.csv", b"prompt,steps\na,many\n", ":2:3", "'steps' must be a whole number"),
    "csv cells": ("a.csv", b"prompt\na, with a comma\n", ":2:1", "2 cells under 1 columns"),
    "csv header": ("a.csv", b"prompt,prompt\na,b\n", ":1:1", "must name the columns, each once"),
    "csv separator": ("a.csv", b"sep=#\nprompt#steps\na#1\n", ":1:5", "a comma, a semicolon, a tab"),
    "csv cells by semicolon": (
        "a.csv",
        b"prompt;steps\na;b;1\n",
        ":2:1",
        "quote cells that hold a semicolon",
    ),
    "csv after sep=": ("a.csv", b"sep=;\nprompt;steps\na;many\n", ":3:3", "'steps' must be a whole number"),
    "json array": ("a.jsonl", b'[\n{"prompt": "a"}]\n', ":1:1", "a JSON array: each line must be an object"),
    "json key twice": (
        "a.jsonl",
        b'{"prompt": "a", "seed": 1, "seed": 2}\n',
        ":1:28",
        "'seed' is given twice",
    ),
    "json NaN": (
        "a.jsonl",
        b'{"prompt": "a", "steps": NaN}\n',
        ":1:26",
        "not JSON: NaN is not a JSON number",
    ),
    "json half a step": (
        "a.jsonl",
        b'{"prompt": "a", "steps": 1.5}\n',
        ":1:17",
        "must be a whole number, not 1.5",
    ),
    "a table of another program": ("a.xlsx", b"PK", "", 'save it as "CSV UTF-8"'),
    "csv quotes": ("a.csv", b'prompt\n"a\n', ":2:1", "not CSV"),
    "half a character": ("a.jsonl", b'{"prompt": "\\ud800"}\n', ":1:2", "a lone surrogate"),
    "csv of an old mac": ("a.csv", b"prompt,steps\ra,0\r", ":2:3", "greater than or equal to 1"),
    "utf-16": ("a.txt", "a fox".encode("utf-16"), "", "is UTF-16; save it as UTF-8"),
    "latin-1": ("a.txt", b"a fox\nun renard d\xe9\n", ":2:12", "is not UTF-8 here"),
    "binary": ("a.txt", b"\x89PNG\0\0", "", "is a binary file"),
    "empty": ("a.txt", b"\n \n", "", "there are no items"),
}


@pytest.mark.parametrize("case", ITEM_FILES)
def test_a_broken_item_file_is_refused_with_its_place(toy: Project, case: str) -> None:
    name, data, place, words = ITEM_FILES[case]
    toy.write("toy.toml", STAGES + f'[batch]\nfile = "{name}"\n')
    toy.write(name, data)
    before = toy.files()

    outcome = toy.invoke("run", "toy.toml")

    assert outcome.code == 3, outcome
    assert (f"{name}{place}" if place else "") in outcome.stderr, outcome
    assert words in outcome.stderr, outcome
    assert "Traceback" not in outcome.stderr
    assert toy.files() == before


def test_a_column_that_nobody_knows_is_reported_once(toy: Project) -> None:
    toy.write("toy.toml", STAGES + '[batch]\nfile = "a.csv"\n')
    toy.write("a.csv", "prompt,sede\n" + "a fox,1\n" * 300)
    outcome = toy.invoke("run", "toy.toml")
    assert outcome.stderr.count("unknown key") == 1, outcome


def test_lines_that_are_broken_hide_nothing_that_is_wrong_elsewhere(toy: Project) -> None:
    toy.write("toy.toml", STAGES + '[stage.with]\nendin = "!"\n[batch]\nfile = "a.jsonl"\n')
    toy.write("a.jsonl", '{"prompt": "a", "stesp": 3}\n{"prompt": \n{"prompt": "b", "steps": "many"}\n')
    outcome = toy.invoke("run", "toy.toml")
    assert outcome.code == 3, outcome
    for place in ("a.jsonl:1:17: unknown key 'stesp'", "a.jsonl:2:", "a.jsonl:3:", "toy.toml:"):
        assert place in outcome.stderr, outcome
