from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from chaos.batch import Batch, made
from chaos.kills import SEED
from project import Project
from toy_plugin import STAGES, TOY

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform != "linux":  # it looks into /proc
    collect_ignore_glob = ["test_*.py"]
EIGHT = f"{STAGES}[batch]\nprompts = {[f'page {n}' for n in range(8)]}\n"


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nothing disturbs, and the moments that it comes to."""

    made: dict[str, bytes]
    moments: list[str]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    batch = Batch(tmp_path_factory.mktemp("undisturbed"))
    outcome = batch.runner(*batch.command)
    assert outcome.code == 0, outcome
    return Undisturbed(made(batch.run), batch.noted("moments"))


@pytest.fixture(scope="session")
def eight_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("eight"))
    project.plugin("toy", TOY)
    project.write("toy.toml", EIGHT)
    outcome = project.runner("run", "toy.toml")
    assert outcome.code == 0, outcome
    return project.folder / "runs"


@pytest.fixture
def eight(toy: Project, eight_undisturbed: Path) -> Project:
    """Eight small items; ``undisturbed`` is what a run makes of them that nothing happens to."""
    toy.write("toy.toml", EIGHT)
    shutil.copytree(eight_undisturbed, toy.folder / "undisturbed")
    return toy


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was done to the runs."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    kills = [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "kills"
    ]
    terminalreporter.write_line(f"chaos: {sum(kills)} kills, seed {SEED}")
