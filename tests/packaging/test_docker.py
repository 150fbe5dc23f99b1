"""The Dockerfile, as far as it can be read without a daemon: its files and arguments are there, its commands exist."""

from __future__ import annotations

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

if TYPE_CHECKING:
    from project import Project

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    shlex.split(line) for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")
]
COPIED = {path for words in INSTRUCTIONS if words[0] == "COPY" for path in words[1:-1]}
DOCUMENTED = {
    command
    for path in (ROOT / "Dockerfile", *(ROOT / "docs").glob("*.md"))
    for command in re.findall(r"(?m)^(?:#   )?(docker (?:run|build) .*?)(?:   .*)?$", path.read_text())
}


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for path in COPIED:
        assert (ROOT / path).exists(), path
        assert not any(fnmatch(path, pattern) for pattern in ignored), path


def test_what_the_builds_read_is_copied() -> None:
    table = tomli.loads((ROOT / "pyproject.toml").read_text())
    assert {table["project"]["readme"], *table["project"]["license-files"]} <= COPIED
    assert {*table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]} <= COPIED


def test_its_entry_point_is_the_command() -> None:
    (entry,) = re.findall(r"(?m)^ENTRYPOINT (.*)$", TEXT)
    (command,) = json.loads(entry)
    assert command in tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("command", sorted(DOCUMENTED))
def test_the_commands_that_are_shown_exist(toy: Project, command: str) -> None:
    words = shlex.split(command)
    if words[1] == "build":
        declared = {name.partition("=")[0] for kind, name, *_ in INSTRUCTIONS if kind == "ARG"}
        given = {words[n + 1].partition("=")[0] for n, word in enumerate(words) if word == "--build-arg"}
        assert given <= declared
        return
    image = next(n for n, word in enumerate(words) if word in ("runner", "runner:cuda"))
    outcome = toy.invoke(words[image + 1], "--help")
    assert outcome.code == 0, outcome
