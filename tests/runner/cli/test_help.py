"""The help of every command: a description, and an example that parses."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from runner.cli.app import app, complete_fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from project import Project


def commands(path: tuple[str, ...], group: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands((*path, name), command)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(("runner",), typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_its_example_is_one_of_this_command_and_parses(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help.strip()
    example = re.search(r"^Example: (.*)", command.help, re.MULTILINE | re.DOTALL)
    assert example, command.help
    words = shlex.split(example[1])
    assert tuple(words[: len(path)]) == path
    # parsed as the command line is, and not run
    with command.make_context(path[-1], complete_fresh(words[len(path) :])) as context:
        assert context.params


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained_and_there_is_json(path: tuple[str, ...]) -> None:
    parameters = COMMANDS[path].params
    assert all(parameter.help for parameter in parameters), [p.name for p in parameters if not p.help]
    assert any("--json" in parameter.opts for parameter in parameters)


@pytest.mark.parametrize("path", [("runner",), *COMMANDS], ids=" ".join)
def test_it_shows_what_people_write_and_no_types_of_python(project: Project, path: tuple[str, ...]) -> None:
    outcome = project.invoke(*path[1:], "--help")
    assert outcome.code == 0, outcome
    assert "--help" in outcome.stdout
    assert not re.search(r"<\w+(\[\w+\])?>|BOOLEAN", outcome.stdout), outcome
