"""Files that parameters name and that cannot be used: refused where they are named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from file_plugin import ITEM, PLUGIN, STAGES

if TYPE_CHECKING:
    from project import Project


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"pics/fix.txt"', "there is no file {0}/pics/fix.txt; did you mean 'fox.txt'?"),
        ('"nowhere/fox.txt"', "there is no file {0}/nowhere/fox.txt"),
        ('"pics"', "{0}/pics is a folder; give a file in it"),
        ('"empty.txt"', "{0}/empty.txt is empty"),
        ('""', "the path of the file is empty"),
        ('"pipe"', "{0}/pipe is no regular file, but a pipe or a device"),
        ('"pointer.txt"', "run `git lfs pull`"),
        ('"https://example.com/fox.png"', "'https://example.com/fox.png' is a URL, which is not downloaded"),
        ("3", "'image' must be a string, not 3"),
        (r'"a\u0000b"', "is no path"),
        ('"pics/fox.txt"\nmore = ["pics/owl.txt", "pics/ox.txt"]', "there is no file {0}/pics/ox.txt"),
        ('"pics/fox.txt"\nframes = "nowhere"', "there is no file or folder {0}/nowhere"),
        ('"pics/fox.txt"\nframes = "hollow"', "{0}/hollow has no files in it"),
        (
            '"pics/fox.txt"\nframes = "linked"',
            "{0}/linked/away cannot be read: it is a link to another folder",
        ),
        ('"pics/fox.txt"\nframes = "dangling"', "{0}/dangling/gone cannot be read: it is no regular file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_where_it_is_named(
    look: Project, value: str, words: str
) -> None:
    look.write("empty.txt", "")
    look.write("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    os.mkfifo(look.folder / "pipe")
    for folder, link, target in (
        ("hollow", "", ""),
        ("linked", "away", "frames"),
        ("dangling", "gone", "none"),
    ):
        (look.folder / folder).mkdir()
        if link:
            (look.folder / folder / link).symlink_to(look.folder / target)
    look.write("look.toml", STAGES + ITEM.replace('"pics/fox.txt"', value))
    for command in ("validate", "plan"):
        outcome = look.invoke(command, "look.toml")
        assert outcome.code == 3, outcome
        line = 13 if "\n" in value else 12
        assert f"look.toml:{line}:" in outcome.stderr
        assert words.format(look.folder) in outcome.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_refused(look: Project) -> None:
    (look.folder / "pics/fox.txt").chmod(0)
    outcome = look.invoke("validate", "look.toml")
    assert outcome.code == 3, outcome
    assert "pics/fox.txt cannot be read: Permission denied" in outcome.stderr


def test_a_missing_file_of_a_list_is_refused_at_its_line(look: Project) -> None:
    look.write("lists/items.jsonl", '{"image": "../pics/fox.txt"}\n{"image": "fox.txt"}\n')
    look.write("look.toml", STAGES + '[batch]\nfile = "lists/items.jsonl"\n')
    outcome = look.invoke("validate", "look.toml")
    assert outcome.code == 3, outcome
    assert f"items.jsonl:2:2: 'image': there is no file {look.folder}/lists/fox.txt" in outcome.stderr


def test_a_file_in_a_table_of_parameters_is_the_plugins_fault(look: Project) -> None:
    inner = "class Inner(BaseModel):\n    picture: InputFile\n    other: list['Inner'] = []\n\n\nclass Read"
    look.plugin(
        "look", PLUGIN.replace("class Read", inner).replace("image: ", "inner: Inner = None\n    image: ")
    )
    outcome = look.invoke("validate", "look.toml")
    assert outcome.code == 4, outcome
    assert (
        "the parameter 'inner' holds a file in a table: a file must be a parameter of its own"
        in outcome.stderr
    )
