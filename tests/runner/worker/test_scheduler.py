"""The order of items: groups, then those that failed, until none is left or the worker is stopped."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runner.worker import scheduler
from runner.worker.item_queue import ItemQueue
from runner.worker.scheduler import schedule

if TYPE_CHECKING:
    from collections.abc import Collection


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "BACK_OFF", 0.0)


def order(size: int, retries: int, failing: Collection[str], stop_at: str = "") -> list[str]:
    """The groups in which items "a" to "e" run, where some fail at each attempt."""
    return groups(closed("abcde"), size, retries, failing, stop_at)


def closed(names: str) -> ItemQueue[str]:
    return ItemQueue(names, is_open=False, want=lambda: None)


def groups(
    items: ItemQueue[str], size: int, retries: int = 0, failing: Collection[str] = "", stop_at: str = ""
) -> list[str]:
    stopping = threading.Event()
    found = []

    def begin(name: str) -> Any:
        return SimpleNamespace(name=name, failure=None, attempts=0)

    for group in schedule(items, begin, size, retries, stopping):
        found.append("".join(run.name for run in group))  # type: ignore[attr-defined]
        for run in group:
            run.attempts += 1
            run.failure = run.name in failing or None  # type: ignore[attr-defined, assignment]
        if stop_at and stop_at in found[-1]:
            stopping.set()
    return found


def fed(first: str, *later: str) -> tuple[ItemQueue[str], list[int]]:
    """A queue that is given more each time it has nothing to do; and, at the end, how often that was."""
    more = iter(later)
    wanted: list[int] = []

    def give() -> None:
        wanted.append(1)
        items = next(more, None)
        threading.Thread(target=lambda: queue.add(items or "", last=items is None)).start()

    queue: ItemQueue[str] = ItemQueue(first, is_open=True, want=give)
    return queue, wanted


def test_items_run_in_groups_of_the_size() -> None:
    assert order(1, 0, "") == ["a", "b", "c", "d", "e"]
    assert order(2, 3, "") == ["ab", "cd", "e"]


def test_failed_items_run_again_in_groups_of_their_own() -> None:
    assert order(2, 2, "ade") == ["ab", "cd", "e", "ad", "e", "ad", "e"]
    assert order(2, 0, "ade") == ["ab", "cd", "e"]


def test_nothing_follows_a_stop() -> None:
    assert order(2, 2, "ab", stop_at="d") == ["ab", "cd"]
    assert order(2, 2, "e", stop_at="e") == ["ab", "cd", "e"]


def test_a_group_is_what_has_come_and_is_not_waited_for() -> None:
    items, wanted = fed("abc", "d", "efghi")
    assert groups(items, 4) == ["abc", "d", "efgh", "i"]
    assert len(wanted) == 3


def test_an_idle_worker_tries_failed_items_again_before_it_asks_for_more() -> None:
    """Whoever sends items may wait for the end of one that failed."""
    items, wanted = fed("ab", "c")
    assert groups(items, 2, 1, "bc") == ["ab", "b", "c", "c"]
    assert len(wanted) == 2


def test_items_that_come_while_failed_ones_wait_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "BACK_OFF", 60.0)
    items: ItemQueue[str] = ItemQueue("a", is_open=True, want=lambda: None)
    stopping = threading.Event()
    found = []

    def begin(name: str) -> Any:
        return SimpleNamespace(name=name, failure=name == "a" or None, attempts=1)

    threading.Timer(0.1, lambda: items.add("b", last=False)).start()
    for (run,) in schedule(items, begin, 1, 1, stopping):
        found.append(run.name)  # type: ignore[attr-defined]
        if len(found) == 2:
            stopping.set()
    assert found == ["a", "b"]


def test_a_stop_ends_the_wait_for_more() -> None:
    items: ItemQueue[str]
    items = ItemQueue("a", is_open=True, want=lambda: threading.Thread(target=items.stop).start())
    assert groups(items, 2) == ["a"]


def test_a_stop_ends_the_time_before_failed_items_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "BACK_OFF", 300.0)
    for is_open in (False, True):
        items: ItemQueue[str] = ItemQueue("a", is_open=is_open, want=lambda: None)
        stopping = threading.Event()

        def stop(items: ItemQueue[str] = items, stopping: threading.Event = stopping) -> None:
            stopping.set()
            items.stop()

        def begin(name: str) -> Any:
            return SimpleNamespace(name=name, failure=True, attempts=1)

        threading.Timer(0.1, stop).start()
        assert len(list(schedule(items, begin, 1, 1, stopping))) == 1
