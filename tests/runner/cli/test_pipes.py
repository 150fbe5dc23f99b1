"""Without a terminal lines are neither wrapped nor padded, so that scripts can read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from project import Project

LONG = "l" + "o" * 97 + "ng"


@pytest.mark.parametrize("command", [["plan"], ["explain"]])
def test_plans_are_not_wrapped(toy: Project, command: list[str]) -> None:
    toy.environment.pop("COLUMNS")
    toy.write(
        "toy.toml", f'{(toy.folder / "toy.toml").read_text()}[[item]]\nid = "{LONG}"\nprompt = "three"\n'
    )
    outcome = toy.runner(*command, "toy.toml")
    assert outcome.code == 0, outcome
    lines = outcome.stdout.splitlines()
    assert any(LONG in line for line in lines)
    assert not [line for line in lines if line != line.rstrip()], "no padding"
    if command == ["plan"]:
        assert f"make: {LONG}: not made yet" in lines
        assert any(line.startswith("  note: this machine") and line.endswith("to a worker") for line in lines)


def test_checks_are_not_wrapped(project: Project) -> None:
    project.environment.pop("COLUMNS")
    project.plugin("torn", f'raise ImportError("{LONG} and {LONG}")\n')
    outcome = project.runner("plugins", "check", "torn")
    assert outcome.code == 4, outcome
    assert f"{LONG} and {LONG}" in outcome.stdout
