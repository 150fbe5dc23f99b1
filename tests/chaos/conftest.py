from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from chaos.batch import Batch, made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KILLS = int(os.environ.get("CHAOS_KILLS", "0"))
"""How many in all; 0 for a short form."""
SEED = os.environ.get("CHAOS_SEED", "0")


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
