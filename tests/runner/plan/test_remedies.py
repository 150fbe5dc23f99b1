"""What would make a stage fit: changes that this machine has room for, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import weighty_plugin

from runner.machine.describe import Machine
from runner.plan.limits import SPARE

if TYPE_CHECKING:
    from project import Project

MIB = 1 << 20


@pytest.fixture
def weighty(project: Project) -> Project:
    weighty_plugin.install(project, width=64, depth=2)
    return project


def misfit(project: Project, leaves: int, *sets: str) -> list[str]:
    """What is said of a stage of about 180 MiB, in a container that leaves so many bytes to a worker."""
    words = [word for setting in ("budget.ram=100MiB", *sets) for word in ("--set", setting)]
    outcome = project.invoke("plan", "weighty.toml", *words, machine=Machine(2, leaves + SPARE))
    assert outcome.code == 5, outcome
    return [line.strip() for line in outcome.stderr.splitlines() if "would fit" in line]


def test_a_budget_is_no_larger_than_what_the_machine_leaves(weighty: Project) -> None:
    assert misfit(weighty, 1 << 30) == ['would fit: a budget of ram = "0.25GiB"']
    assert misfit(weighty, 190 * MIB) == ['would fit: a budget of ram = "181MiB"']


def test_where_nothing_would_fit_here_the_least_is_said(weighty: Project) -> None:
    (line,) = misfit(weighty, 150 * MIB)
    assert line.startswith("no change is known that would fit here: 180.")
    assert line.endswith("MiB of RAM is the least, and this machine has 150.0 MiB of RAM")


def test_a_change_must_fit_with_the_placement_that_is_set(project: Project) -> None:
    weighty_plugin.install(project, width=1024, depth=8)  # 36 MiB
    budget = ["--set", "budget.ram=214MiB", "--set", "item.item.takes=40"]
    outcome = project.invoke("plan", "weighty.toml", *budget)
    assert "would fit: takes = 8 in [stage.with]" in outcome.stderr, outcome
    outcome = project.invoke("plan", "weighty.toml", *budget, "--set", "stage.run.placement=resident")
    assert outcome.code == 5, outcome
    assert "would fit: a budget of ram" in outcome.stderr
    assert "takes =" not in outcome.stderr, "resident it would not fit all the same"


def test_new_takes_no_more_than_there_is(project: Project) -> None:
    outcome = project.invoke(
        "new", "--device", "cpu", "--model", "plugin:flux/demo", machine=Machine(2, SPARE)
    )
    assert outcome.code == 5, outcome
    assert "this machine (or its container) leaves no RAM to a worker" in outcome.stderr
