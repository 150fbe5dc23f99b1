"""StageContract in an author's tests: what fails, what is skipped, and the messages."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import faulty_plugin
import pytest

from runner.plugin_check import checks
from runner.testing import Outcome, StageContract

if TYPE_CHECKING:
    from project import Project

REST = [*checks.STAGE_CHECKS, *checks.RUN_CHECKS, checks.IMPORTS]
TESTS = '''
from runner.testing import Project, StageContract, project


class TestShared(StageContract):
    stage = "faulty.shared"
    params = {"prompt": "left"}
    other = {"steps": 4}


class TestChoosy(StageContract):
    stage = "faulty.choosy"


class TestAbsent(StageContract):
    stage = "no_such.stage"


def test_a_run(project):
    project.write("paths.toml", """
        version = 1
        name = "paths"
        [[stage]]
        name = "walk"
        uses = "faulty.well"
        [[item]]
        prompt = "left"
    """)
    outcome = project.runner("validate", "paths.toml")
    assert outcome.code == 3, outcome
'''


@pytest.fixture
def outcome(project: Project) -> Outcome:
    faulty_plugin.install(project)
    project.write("test_faulty.py", TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "no:cacheprovider", "test_faulty.py"]
    done = subprocess.run(
        command,
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return Outcome(command, done.returncode, done.stdout, done.stderr)


def test_faults_fail_with_what_is_wrong_and_what_to_do(outcome: Outcome) -> None:
    failed = set(re.findall(r"^FAILED test_faulty.py::(\S+)", outcome.stdout, re.MULTILINE))
    assert failed == {
        "TestShared::test_interleaves",
        "TestShared::test_resumes",
        "TestShared::test_memory",
        "TestChoosy::test_runs",
        "TestAbsent::test_loads",
        "test_a_run",
    }, outcome
    assert "faulty.shared: 'x' of item 'two' differs when another item is made in turns" in outcome.stdout
    assert "> keep an item's state inside the function for one item" in outcome.stdout
    assert "no plugin 'no_such' is installed" in outcome.stdout
    # what the author does not give is generated; in the author's own test, refusing it is a fault
    assert "faulty.choosy: ValueError: only left or right" in outcome.stdout
    assert "not reached: runs: ValueError: only left or right" in outcome.stdout
    # an assertion on an outcome shows the output of the command
    assert "$ runner validate paths.toml" in outcome.stdout


def test_every_check_of_a_stage_is_a_test() -> None:
    tests = {name.removeprefix("test_") for name in vars(StageContract) if name.startswith("test_")}
    assert tests == {checks.LOADS, *REST}
