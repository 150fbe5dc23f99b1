"""Reading a manifest's text, and what overrides and prompts make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.errors import ExitCode
from runner.manifest.load import load, read_text
from runner.manifest.problems import ManifestError, Problem, Problems
from runner.pipeline.unknown_keys import check_unknown_keys

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """version = 1
name = "x"
[[stage]]
name = "one"
uses = "a.b"
[batch]
prompts = ["p"]
seeds = [1, 2]
[[item]]
id = "fox"
prompt = "q"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "x.toml"
    file.write_text(MANIFEST)
    return file


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * 101, "is larger than 0 MiB"),
        ("a".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"a\0b", "is a binary file, not text"),
        (b"one\ntw\xff", r"x.toml:2:3: is not UTF-8 here"),
    ],
)
def test_what_is_no_text(path: Path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=words):
        read_text(path, 100)


def test_a_byte_order_mark_is_no_text(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + "ä".encode())
    assert read_text(path, 100) == "ä"
    path.write_bytes(b"x" * 100)
    assert len(read_text(path, 100)) == 100
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        read_text(path.with_name("other"), 100)


def test_prompts_take_the_place_of_all_items(path: Path) -> None:
    table = load(path, (), ["mine"]).table
    assert table.batch is not None
    assert (table.batch.prompts, table.batch.seeds, list(table.item or ())) == (["mine"], [1, 2], [])


def test_two_stages_of_one_name(path: Path) -> None:
    path.write_text(MANIFEST.replace("[batch]", '[[stage]]\nname = "one"\nuses = "a.c"\n[batch]'))
    assert "two stages are named 'one'" in reported(path)


def reported(path: Path, *sets: str) -> str:
    """What is wrong, reported at once or once the stages' parameters are known."""
    return "\n".join(str(problem) for problem in problems(path, *sets))


def problems(path: Path, *sets: str) -> list[Problem]:
    manifest = load(path, sets)
    found = Problems(list(manifest.problems))
    check_unknown_keys(manifest, {}, found)
    return found.found


def test_an_unknown_key_on_the_command_line_is_a_usage_error(path: Path) -> None:
    (problem,) = problems(path, "budget.rma=1GiB")
    assert problem.exit_code == ExitCode.USAGE
    (problem,) = problems(path, "budget.ram=1")
    assert problem.exit_code == ExitCode.MANIFEST
    assert "a stage's parameter is stage.NAME.with.guidance" in reported(path, "guidance=4")
