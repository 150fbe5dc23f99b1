"""Edits of a manifest's text: the value changes, and every other character stays."""

from __future__ import annotations

import difflib
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from runner.tailor.rewrite import drop, put, put_line, remark, same_data

if TYPE_CHECKING:
    from runner.manifest.positions import Path

TEXT = """\
# The top.
version = 1
name = "x"

[model]
source = "./flux"

[budget]
device = "auto"   # which one

# The encoders come first.
[[stage]]
name = "encode"  # its name
dtype = 'float32'           # full
device_map = { "a" = "cpu" }  # a map

# its parameters
[stage.with]
length = 5
# behind them

# Then the rest.
[[stage]]
name = "diffuse"
[stage.device_map]
"" = "cpu"     # all of it
"b.c" = 0

# The last.
[[stage]]
name = "decode"
# behind decode

[batch]
prompts = ["a", '''
[[stage]]
name = "none"  # no comment
''']
"""


def changed(before: str, after: str) -> list[str]:
    """The lines that went and came, as a diff shows them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.mark.parametrize(
    ("path", "value", "lines"),
    [
        (("budget", "vram"), "6GiB", ['+vram = "6GiB"']),
        (("budget", "device"), "cpu", ['-device = "auto"   # which one', '+device = "cpu"    # which one']),
        # a comment keeps its column
        (
            ("stage", 0, "dtype"),
            "bfloat16",
            ["-dtype = 'float32'           # full", '+dtype = "bfloat16"          # full'],
        ),
        (("stage", 0, "placement"), "auto", ['+placement = "auto"']),
        (("stage", 0, "with", "length"), 512, ["-length = 5", "+length = 512"]),
        (("stage", 0, "with", "tile"), 512, ["+tile = 512"]),
        (("stage", 1, "placement"), "auto", ['+placement = "auto"']),
        (("stage", 2, "with", "tile"), 512, ["+[stage.with]", "+tile = 512"]),
        (("stage", 2, "budget", "ram"), "1GiB", ["+[stage.budget]", '+ram = "1GiB"']),
        (
            ("stage", 0, "device_map", "a"),
            "disk",
            ['-device_map = { "a" = "cpu" }  # a map', '+device_map = { "a" = "disk" }  # a map'],
        ),
        (("stage", 1, "device_map", "b.c"), "disk", ['-"b.c" = 0', '+"b.c" = "disk"']),
        (("run", "on_oom"), "fail", ["+", "+[run]", '+on_oom = "fail"']),
        (("batch", "seeds"), [1, 2], ["+seeds = [1, 2]"]),
    ],
)
def test_a_value_is_set_and_nothing_else(path: Path, value: Any, lines: list[str]) -> None:
    assert changed(TEXT, put(TEXT, path, value)) == lines


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        (("budget", "device"), ['-device = "auto"   # which one']),
        (("budget", "vram"), []),
        (("budget",), ["-[budget]", '-device = "auto"   # which one']),
        (("stage", 0, "device_map"), ['-device_map = { "a" = "cpu" }  # a map']),
        # the comment over the next stage stays
        (("stage", 1, "device_map"), ["-[stage.device_map]", '-"" = "cpu"     # all of it', '-"b.c" = 0']),
        (("stage", 0, "with"), ["-[stage.with]", "-length = 5"]),
    ],
)
def test_what_is_dropped_takes_no_comment_with_it(path: Path, lines: list[str]) -> None:
    assert changed(TEXT, drop(TEXT, path)) == lines


def test_a_new_key_lies_with_its_table_not_behind_the_comment_of_the_next() -> None:
    edited = put(TEXT, ("budget", "vram"), "6GiB")
    assert 'device = "auto"   # which one\nvram = "6GiB"\n\n# The encoders' in edited
    edited = put(TEXT.replace("[budget]\n", ""), ("budget", "vram"), "6GiB")
    assert 'device = "auto"   # which one\n\n[budget]\nvram = "6GiB"\n\n# The encoders' in edited


BUDGETS = {
    "table": '[budget] # b\ndevice = "cpu" # d\n',
    "indented": '  [budget]\n    device = "cpu" # d\n',
    "empty": "[budget]\n# nothing\n",
    "inline": 'budget = { device = "cpu" } # d\n',
    "dotted": 'budget.device = "cpu" # d\n',
    "absent": "",
}
STAGES = {
    "tables": '# s\n[[stage]]\nname = "s" # n\n[stage.with] # w\nt = 1 # t\n\n# next\n[[stage]]\nname = "n"\n',
    "bare": '# s\n[[stage]]\nname = "s" # n\n\n# next\n[[stage]]\nname = "n"\n',
    "inline tables": '# s\n[[stage]]\nname = "s"\nwith = { t = 1 } # w\n[stage.from]\na = "b"\n',
    "dotted": '# s\n[[stage]]\nname = "s"\nwith.t = 1 # w\nwith.u = { v = [1] }\n',
    "inline": 'stage = [ # s\n  { name = "s", with = { t = 1 } }, # n\n  { name = "n" },\n]\n',
}
EDITS: list[tuple[Path, Any]] = [
    (("budget", "vram"), "6GiB"),
    (("budget", "device"), "cuda"),
    (("stage", 0, "with", "t"), 512),
    (("stage", 0, "with", "new"), "it's"),
    (("stage", 0, "dtype"), "bfloat16"),
    (("name",), "other"),
]


@pytest.mark.parametrize(("budget", "stage"), product(BUDGETS, STAGES))
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("end", ["", "\n"], ids=["unended", "ended"])
def test_however_tables_are_written(budget: str, stage: str, newline: str, end: str) -> None:
    tables = [BUDGETS[budget], STAGES[stage]]
    if stage == "inline" and budget in ("table", "indented", "empty"):
        tables.reverse()  # keys of the root stand before any table
    text = 'version = 1\nname = "x" # x\n' + "\n".join(tables).rstrip("\n") + end
    text = text.replace("\n", newline)
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    for path, value in EDITS:  # `put` itself checks the edited data
        text = put(text, path, value)
    assert [line.partition("#")[2] for line in text.splitlines() if "#" in line] == comments
    assert text.count("\n") == text.count(newline)
    for path, _ in EDITS[:-1]:
        text = drop(text, path)
    assert tomli.loads(text)["name"] == "other"
    assert not tomli.loads(text).get("budget")


def test_a_number_that_is_none_does_not_get_in_the_way() -> None:
    assert put("a = nan\nb = 2024-01-01\nc = 1", ("c",), 2) == "a = nan\nb = 2024-01-01\nc = 2"


def test_another_comment_behind_a_value() -> None:
    assert changed(TEXT, remark(TEXT, ("stage", 0, "dtype"), "half")) == [
        "-dtype = 'float32'           # full",
        "+dtype = 'float32'           # half",
    ]
    assert '\nname = "decode"  # new\n' in remark(TEXT, ("stage", 2, "name"), "new")
    assert remark(TEXT, ("stage", 2, "dtype"), "new") == TEXT


def test_a_line_of_its_own_is_indented_like_the_one_above() -> None:
    assert put_line("  [[stage]]\n    a = 1\n", 4, "# here") == "  [[stage]]\n  # here\n    a = 1\n"


def test_comments_are_no_data_and_lines_of_strings_are() -> None:
    assert same_data(TEXT, TEXT.replace("# full", "# half"))
    assert not same_data(TEXT, TEXT.replace("# no comment", "# none"))
