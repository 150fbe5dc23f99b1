"""Broken manifests and item files: each with its message, its place and its exit code, and nothing written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from project import Project

GOOD = """\
version = 1
name = "toy"
[budget]
device = "cpu"
[[stage]]
name = "make"
uses = "toy.make"
[stage.with]
steps = 2
[[stage]]
name = "write"
uses = "toy.write"
[batch]
prompts = ["one"]
"""

# what is replaced in GOOD, by what, and the place and the words that the message must have
TABLES = {
    "syntax": ("steps = 2", "steps = ", "9:9", "invalid value"),
    "unclosed string": ('name = "toy"', 'name = "toy', "2:12", "illegal character"),
    "key twice": ("steps = 2", "steps = 2\nsteps = 3", "10:10", "overwrite"),
    "version": ("version = 1", "version = 2", "1:11", "'version': must be 1, not 2"),
    "no version": ("version = 1\n", "", "", "'version' is missing"),
    "no name": ('name = "toy"\n', "", "", "'name' is missing"),
    "name with slash": ('name = "toy"', 'name = "../toy"', "2:8", "'name'"),
    "name of dots": ('name = "toy"', 'name = ".."', "2:8", "'name'"),
    "unknown table": ("[budget]", "[bugdet]", "3:2", "unknown key 'bugdet'; did you mean 'budget'?"),
    "unknown key": (
        'device = "cpu"',
        'vrm = "8GiB"',
        "4:1",
        "unknown key 'vrm'; did you mean 'vram'?",
    ),
    "bare size": ('device = "cpu"', "vram = 8", "4:8", 'such as "8GiB"'),
    "unknown unit": ('device = "cpu"', 'ram = "8 gigs"', "4:7", 'such as "8GiB"'),
    "no memory at all": ('device = "cpu"', 'ram = "0GiB"', "4:7", "more than nothing"),
    "device": ('device = "cpu"', 'device = "gpu"', "4:10", "'device'"),
    "threads": ('device = "cpu"', "threads = 0", "4:11", "greater than or equal to 1"),
    "two stages of a name": ('name = "write"', 'name = "make"', "11:8", "two stages are named 'make'"),
    "stage name": ('name = "write"', 'name = "wri/te"', "11:8", "'name'"),
    "dtype": (
        'uses = "toy.make"',
        'uses = "toy.make"\ndtype = "bfloat61"',
        "8:9",
        "did you mean 'bfloat16'?",
    ),
    "placement": (
        'uses = "toy.make"',
        'uses = "toy.make"\nplacement = "gpu"',
        "8:13",
        "'resident'",
    ),
    "offload on the cpu": (
        'uses = "toy.make"',
        'uses = "toy.make"\nplacement = "model-offload"',
        "8:13",
        "needs an accelerator",
    ),
    "timeout": (
        'uses = "toy.make"',
        'uses = "toy.make"\ntimeout = "soon"',
        "8:11",
        "write a time",
    ),
    "parameter of the plugin": (
        "steps = 2",
        "stesp = 2",
        "9:1",
        "toy.make has no parameter 'stesp'; did you mean 'steps'?",
    ),
    "parameter's type": (
        "steps = 2",
        'steps = "2"',
        "9:9",
        "'steps' must be a whole number, not '2'",
    ),
    "parameter's bound": ("steps = 2", "steps = 0", "9:9", "greater than or equal to 1, not 0"),
    "boolean for number": ("steps = 2", "steps = true", "9:9", "must be a whole number, not true"),
    "input renamed in vain": (
        'uses = "toy.write"',
        'uses = "toy.write"\n[stage.from]\nnumbers = "nubmers"',
        "14:11",
        "did you mean 'numbers'?",
    ),
    "no such input": (
        'uses = "toy.write"',
        'uses = "toy.write"\n[stage.from]\nnumber = "numbers"',
        "14:1",
        "has no input 'number'",
    ),
    "text for tensor": (
        'uses = "toy.write"',
        'uses = "toy.write"\n[stage.from]\nnumbers = "caption"',
        "14:11",
        "leaves 'caption' as a text, and stage 'write' needs a tensor",
    ),
    "order": (
        'name = "make"\nuses = "toy.make"',
        'name = "first"\nuses = "toy.write"',
        "5:3",
        "stage 'first' needs 'numbers', and no earlier stage leaves",
    ),
    "empty batch": ('prompts = ["one"]', "prompts = []", "13:2", "there are no items"),
    "empty prompt": ('prompts = ["one"]', 'prompts = ["one", "  "]', "14:19", "the prompt is empty"),
    "prompt's type": ('prompts = ["one"]', 'prompts = ["one", 2]', "14:19", "must be a string, not 2"),
    "negative seed": ('prompts = ["one"]', 'prompts = ["one"]\nseeds = [-1]', "15:10", "-1"),
    "seed too large": (
        'prompts = ["one"]',
        'prompts = ["one"]\nseeds = [18446744073709551616]',
        "15:10",
        "less than 18446744073709551616",
    ),
    "missing item file": ('prompts = ["one"]', 'file = "no.jsonl"', "14:8", "there is no file"),
    "item file of another kind": (
        'prompts = ["one"]',
        'file = "toy.toml"',
        "",
        ".txt, .csv and .jsonl files only",
    ),
    "unknown item key": (
        'prompts = ["one"]',
        '[[item]]\nprompt = "a"\nstep = 3',
        "16:8",
        "unknown key 'step': no stage of this manifest has it; did you mean 'steps'?",
    ),
    "item without its prompt": (
        'prompts = ["one"]',
        "[[item]]\nseed = 3",
        "14:3",
        "'prompt' is missing: toy.make needs it",
    ),
    "item's bound": (
        'prompts = ["one"]',
        '[[item]]\nprompt = "a"\nsteps = 0',
        "16:9",
        "greater than or equal to 1, not 0",
    ),
    "hostile id": (
        'prompts = ["one"]',
        '[[item]]\nid = "../../etc/passwd"\nprompt = "a"',
        "15:6",
        "cannot be a file name",
    ),
    "id of dots": (
        'prompts = ["one"]',
        '[[item]]\nid = ".."\nprompt = "a"',
        "15:6",
        "cannot be a file name",
    ),
    "long id": (
        'prompts = ["one"]',
        f'[[item]]\nid = "{"a" * 101}"\nprompt = "a"',
        "15:6",
        "cannot be a file name",
    ),
    "id twice": (
        'prompts = ["one"]',
        '[[item]]\nid = "a"\nprompt = "a"\n[[item]]\nid = "a"\nprompt = "b"',
        "18:6",
        "two items have the id 'a' (the other is at 15:6)",
    ),
    "no model source": (
        "[budget]",
        '[model]\nsource = "just a name"\n[budget]',
        "4:10",
        "is no model source",
    ),
    "model path escapes its plugin": (
        "[budget]",
        '[model]\nsource = "plugin:flux/../secret"\n[budget]',
        "4:10",
        "is no packaged model",
    ),
    "revision of a folder": (
        "[budget]",
        '[model]\nsource = "./here"\nrevision = "main"\n[budget]',
        "4:10",
        "only a model on the hub has a revision",
    ),
}


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
