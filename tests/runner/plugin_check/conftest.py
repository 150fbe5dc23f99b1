from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Outcome, Project

Found = dict[str, dict[str, dict[str, Any]]]
"""Verdicts by subject and check."""


@pytest.fixture
def check(project: Project) -> Callable[..., tuple[Outcome, Found]]:
    """Run ``plugins check --json``; returns the outcome, and the verdicts."""

    def call(*arguments: str) -> tuple[Outcome, Found]:
        outcome = project.runner("plugins", "check", *arguments, "--json")
        found: Found = {}
        for verdict in json.loads(outcome.stdout)["checks"]:
            found.setdefault(verdict["subject"], {})[verdict["check"]] = verdict
        return outcome, found

    return call
