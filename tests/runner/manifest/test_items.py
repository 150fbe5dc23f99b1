"""Batches: where items come from, their seeds and their ids."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from toy_plugin import STAGES

from runner.manifest.items import expand
from runner.manifest.load import load
from runner.manifest.problems import Problems

if TYPE_CHECKING:
    from project import Project

    from runner.manifest.batch_item import BatchItem

HEAD = """
version = 1
name = "items"
[[stage]]
name = "make"
uses = "toy.make"
"""


def items_of(project: Project, text: str) -> list[BatchItem]:
    problems = Problems()
    items = expand(load(project.write("items.toml", HEAD + text)), problems)
    problems.check()
    return items


def test_every_prompt_with_every_seed(project: Project) -> None:
    found = items_of(project, '[batch]\nprompts = ["A red fox!", "x"]\nseeds = [1, 2]\n')
    assert [(i.id, i.fields["prompt"], i.fields["seed"]) for i in found] == [
        ("a-red-fox-1", "A red fox!", 1),
        ("a-red-fox-2", "A red fox!", 2),
        ("x-1", "x", 1),
        ("x-2", "x", 2),
    ]


def test_files_and_tables_add_to_prompts(project: Project) -> None:
    project.write("a.jsonl", '{"prompt": "j", "id": "json", "seed": 9}\n\n')
    found = items_of(
        project,
        '[batch]\nprompts = ["p"]\nfile = "a.jsonl"\nseeds = [1, 2]\n[[item]]\nid = "t"\nprompt = "t"\n',
    )
    assert [(i.id, i.fields["seed"]) for i in found] == [
        ("p-1", 1),
        ("p-2", 2),
        ("json", 9),
        ("t-1", 1),
        ("t-2", 2),
    ]


def test_csv_and_txt(project: Project) -> None:
    project.write("a.csv", 'prompt, steps\n"a, b",3\n\n"two\nlines",\n')
    found = items_of(project, '[batch]\nfile = "a.csv"\n')
    assert [dict(i.fields) for i in found] == [{"prompt": "a, b", "steps": "3"}, {"prompt": "two\nlines"}]
    assert found[1].where("prompt").line == 4
    project.write("a.txt", b"\xef\xbb\xbfone\r\n\r\n  two  \r\n")
    found = items_of(project, '[batch]\nfile = "a.txt"\n')
    assert [i.fields["prompt"] for i in found] == ["one", "two"]


ROW = {"prompt": "a, b; c", "steps": "3"}


@pytest.mark.parametrize(
    "text",
    [
        'prompt,steps\n"a, b; c",3\n',
        'prompt;steps\n"a, b; c";3\n',
        "prompt\tsteps\na, b; c\t3\n",
        'sep=;\nprompt;steps\n"a, b; c";3\n',
        '"sep=,"\r\n"prompt","steps"\r\n"a, b; c","3"\r\n',
        "\ufeffsep=\t\nprompt\tsteps\na, b; c\t3\n",
    ],
    ids=["comma", "semicolon", "tab", "declared", "declared and quoted", "declared tab after a mark"],
)
def test_cells_are_separated_as_the_header_tells(project: Project, text: str) -> None:
    project.write("a.csv", text.encode())
    (found,) = items_of(project, '[batch]\nfile = "a.csv"\n')
    assert found.fields == ROW
    assert found.where("steps").line == (3 if "sep=" in text else 2)


def test_jsonl_takes_what_csv_takes(project: Project) -> None:
    project.write("a.jsonl", '{"prompt": "fox", "seed": 7.0, "steps": null}\n{"prompt": "x", "seed": null}\n')
    project.write("a.csv", "prompt,seed,steps\nfox,7.0,\nx,,\n")
    lines = items_of(project, '[batch]\nfile = "a.jsonl"\nseeds = [1]\n')
    rows = items_of(project, '[batch]\nfile = "a.csv"\nseeds = [1]\n')
    assert [dict(item.fields) for item in lines] == [{"prompt": "fox", "seed": 7}, {"prompt": "x", "seed": 1}]
    assert [item.id for item in lines] == [item.id for item in rows] == ["fox-7", "x-1"]


def test_whole_numbers_may_be_written_with_a_point_everywhere(toy: Project) -> None:
    toy.write("toy.toml", STAGES + "[[item]]\nprompt = 'fox'\nseed = 7.0\n")
    outcome = toy.invoke("plan", "toy.toml", "--set", "stage.make.with.steps=4.0", "--json")
    assert outcome.code == 0, outcome
    (point,) = json.loads(outcome.stdout)["stages"][0]["todo"]
    toy.write("toy.toml", STAGES + "[[item]]\nprompt = 'fox'\nseed = 7\nsteps = 4\n")
    assert json.loads(toy.invoke("plan", "toy.toml", "--json").stdout)["stages"][0]["todo"] == [point]


def test_comments_in_a_list_of_prompts(project: Project) -> None:
    project.write("a.txt", "# animals\n  #a dog\na cat # grey\n\\#1 in the list\n\\o/\n")
    found = items_of(project, '[batch]\nfile = "a.txt"\n')
    assert [item.fields["prompt"] for item in found] == ["a cat # grey", "#1 in the list", "\\o/"]


def test_ids_are_safe_unique_and_do_not_depend_on_the_order(project: Project) -> None:
    prompts = ["猫", "犬", "../../etc", "same!", "same?", "a" * 300, "same!", "CON"]
    first = items_of(project, f"[batch]\nprompts = {prompts!r}\n")
    again = items_of(project, f"[batch]\nprompts = {prompts[::-1]!r}\n")
    ids = [i.id for i in first]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) for name in ids)
    assert set(ids) == {i.id for i in again}
    assert {i.fields["prompt"]: i.id for i in first if i.fields["prompt"] != "same!"} == {
        i.fields["prompt"]: i.id for i in again if i.fields["prompt"] != "same!"
    }


def test_a_name_that_was_given_is_never_taken(project: Project) -> None:
    found = items_of(project, '[[item]]\nprompt = "fox"\n[[item]]\nid = "fox"\nprompt = "other"\n')
    assert [i.id for i in found] == ["fox-2", "fox"]


def test_ids_do_not_depend_on_the_order_of_fields(project: Project) -> None:
    """A program that writes the same items may order them otherwise the next time."""
    project.write(
        "a.jsonl", '{"prompt": "a fox", "seed": 1, "steps": 3}\n{"prompt": "A fox", "steps": 4, "seed": 1}\n'
    )
    project.write(
        "b.jsonl", '{"steps": 3, "seed": 1, "prompt": "a fox"}\n{"seed": 1, "prompt": "A fox", "steps": 4}\n'
    )
    first, second = (items_of(project, f'[batch]\nfile = "{name}.jsonl"\n') for name in "ab")
    assert [item.id for item in first] == [item.id for item in second]
    assert len({item.id for item in first}) == 2


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (
            '[[item]]\nid = "fox"\nprompt = "a"\n[[item]]\nid = "fox"\nprompt = "b"\n',
            "two items have the id 'fox' (the other is at ",
        ),
        (
            f'[batch]\nseeds = [1, 20]\n[[item]]\nid = "{"x" * 98}"\nprompt = "a"\n',
            "with its seed the id is longer than 100 characters",
        ),
        ('[[item]]\nid = "../etc"\nprompt = "a"\n', "the id '../etc' cannot be a file name"),
        ('[[item]]\nid = ".."\nprompt = "a"\n', "the id '..' cannot be a file name"),
    ],
)
def test_ids_that_cannot_be(toy: Project, batch: str, words: str) -> None:
    toy.write("toy.toml", STAGES + batch)
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 3, outcome
    assert words in outcome.stderr
