"""The order of items: groups, then those that failed, until none is left or the worker is stopped."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runner.worker import scheduler
from runner.worker.scheduler import schedule

if TYPE_CHECKING:
    from collections.abc import Collection


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "BACK_OFF", 0.0)


def order(size: int, retries: int, failing: Collection[str], stop_at: str = "") -> list[str]:
    """The groups in which items "a" to "e" run, where some fail at each attempt."""
    runs: list[Any] = [SimpleNamespace(name=name, failure=None) for name in "abcde"]
    stopping = threading.Event()
    groups = []
    for group in schedule(iter(runs), size, retries, stopping):
        groups.append("".join(run.name for run in group))  # type: ignore[attr-defined]
        for run in group:
            run.failure = run.name in failing or None  # type: ignore[attr-defined, assignment]
        if stop_at and stop_at in groups[-1]:
            stopping.set()
    return groups


def test_items_run_in_groups_of_the_size() -> None:
    assert order(1, 0, "") == ["a", "b", "c", "d", "e"]
    assert order(2, 3, "") == ["ab", "cd", "e"]


def test_failed_items_run_again_in_groups_of_their_own() -> None:
    assert order(2, 2, "ade") == ["ab", "cd", "e", "ad", "e", "ad", "e"]
    assert order(2, 0, "ade") == ["ab", "cd", "e"]


def test_nothing_follows_a_stop() -> None:
    assert order(2, 2, "ab", stop_at="d") == ["ab", "cd"]
    assert order(2, 2, "e", stop_at="e") == ["ab", "cd", "e"]
