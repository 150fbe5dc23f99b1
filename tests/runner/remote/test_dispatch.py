"""Which node gets which tasks: by their groups and paces, suspects alone, and nobody idle at the end."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from runner.remote.dispatch import MOST, Dispatch

if TYPE_CHECKING:
    import pytest


def task(name: str) -> Any:
    return SimpleNamespace(item=SimpleNamespace(id=name))


def node(group: int = 1, pace: float = 0.0, name: str = "") -> Any:
    found = SimpleNamespace(given={}, since={}, alone=False, asked=False, pace=pace, name=name)
    found.group = lambda _stage: group
    return found


def give(dispatch: Dispatch, to: Any, nodes: list[Any]) -> str:
    tasks = dispatch.next_for(to, nodes, 0)
    for one in tasks:
        to.given[one.item.id], to.since[one.item.id] = one, time.monotonic()
    return "".join(one.item.id for one in tasks)


def test_a_node_has_a_group_in_flight_and_one_ahead() -> None:
    dispatch, nodes = Dispatch([task(name) for name in "abcdefghijkl"]), [node(2), node(1)]
    assert give(dispatch, nodes[0], nodes) == "abcd"
    assert give(dispatch, nodes[1], nodes) == "ef"
    assert give(dispatch, nodes[0], nodes) == ""


def test_a_quick_node_has_a_second_of_work_before_it_but_not_all() -> None:
    tasks = [task(f"t{n}") for n in range(1000)]
    nodes = [node(pace=0.1), node(pace=0.0001), node(pace=10), node(pace=1e-310)]
    dispatch = Dispatch(tasks)
    given = [len(dispatch.next_for(one, nodes, 0)) for one in nodes]
    assert given == [11, MOST, 2, MOST]


def test_what_is_left_is_shared() -> None:
    dispatch, nodes = Dispatch([task(name) for name in "abcd"]), [node(4), node(4)]
    assert give(dispatch, nodes[0], nodes) == "ab"
    assert give(dispatch, nodes[1], nodes) == "cd"


def test_suspects_come_last_and_each_alone() -> None:
    tasks = [task(name) for name in "abc"]
    dispatch, one = Dispatch(tasks), node(3)
    assert give(dispatch, one, [one]) == "abc"
    one.given.clear()
    assert not dispatch.lost_with(tasks[0], one)
    assert not dispatch.lost_with(tasks[1], one)
    dispatch.put_back(tasks)
    assert give(dispatch, one, [one]) == "c"
    assert give(dispatch, one, [one]) == ""
    one.given.clear()
    assert give(dispatch, one, [one]) == "a"
    assert one.alone
    dispatch.put_back([tasks[2]])
    assert give(dispatch, one, [one]) == ""
    assert dispatch.lost_with(tasks[0], one)


def test_what_a_node_has_damaged_is_for_another_one() -> None:
    tasks = [task(name) for name in "ab"]
    dispatch, nodes = Dispatch(tasks), [node(), node()]
    assert give(dispatch, nodes[0], nodes) == "a"
    nodes[0].given.clear()
    dispatch.put_back_damaged(tasks[0], nodes[0])
    assert give(dispatch, nodes[0], nodes) == "b"
    assert give(dispatch, nodes[1], nodes) == "a"
    nodes[1].given.clear()
    dispatch.put_back_damaged(tasks[0], nodes[1])
    assert give(dispatch, nodes[1], nodes) == ""
    assert give(dispatch, nodes[1], [nodes[1]]) == "a"  # there is no other one


def test_a_suspect_is_for_another_node_than_the_agent_that_is_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("runner.remote.dispatch.time.monotonic", lambda: now)
    tasks = [task(name) for name in "ab"]
    dispatch, lost, other = Dispatch(tasks), node(name="one"), node(name="two")
    assert give(dispatch, lost, [lost, other]) == "a"
    assert not dispatch.lost_with(tasks[0], lost)
    dispatch.put_back([tasks[0]])
    assert give(dispatch, other, [other]) == "b"
    anew = node(name="one")
    assert give(dispatch, anew, [anew, other]) == ""
    now = 10.0  # the other one gets nothing done
    assert give(dispatch, anew, [anew, other]) == "a"
    assert anew.alone


def test_what_has_ended_is_given_to_nobody() -> None:
    dispatch, one = Dispatch([task("a"), task("b")]), node(2)
    assert dispatch.close("a") is not None
    assert dispatch.close("a") is None
    assert give(dispatch, one, [one]) == "b"
    dispatch.put_back([task("a")])
    assert give(dispatch, one, [one]) == ""


def test_for_an_idle_node_the_busiest_gives_back_what_it_has_not_begun() -> None:
    dispatch, nodes = Dispatch([task(name) for name in "abcde"]), [node(), node()]
    nodes[0].given = {name: task(name) for name in "abcde"}
    dispatch._waiting.clear()
    found = dispatch.to_withdraw(nodes, 0)
    assert found is not None
    assert (found[0] is nodes[0], found[1]) == (True, ["d", "e"])
    nodes[0].asked = True
    assert dispatch.to_withdraw(nodes, 0) is None
    nodes[0].asked, nodes[0].given = False, {"a": task("a")}
    assert dispatch.to_withdraw(nodes, 0) is None


def test_an_idle_node_makes_what_takes_long_elsewhere_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("runner.remote.dispatch.time.monotonic", lambda: now)
    dispatch, nodes = Dispatch([task("a")]), [node(pace=4), node(pace=4), node(pace=4)]
    dispatch._waiting.clear()
    nodes[0].given, nodes[0].since = {"a": task("a")}, {"a": 90.0}
    assert dispatch.straggler_for(nodes[1], nodes, 0) is None
    now = 102.5
    found: Any = dispatch.straggler_for(nodes[1], nodes, 0)
    assert found.item.id == "a"
    nodes[1].given, nodes[1].since = {"a": found}, {"a": now}
    now = 200.0
    assert dispatch.straggler_for(nodes[2], nodes, 0) is None  # two are enough


def test_items_that_run_together_take_long_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds of an item are its own part of its group's."""
    now = 100.0
    monkeypatch.setattr("runner.remote.dispatch.time.monotonic", lambda: now)
    dispatch, nodes = Dispatch([task("a")]), [node(4, pace=4), node(4, pace=4)]
    dispatch._waiting.clear()
    nodes[0].given, nodes[0].since = {"a": task("a")}, {"a": 60.0}
    assert dispatch.straggler_for(nodes[1], nodes, 0) is None
    now = 110.0
    assert dispatch.straggler_for(nodes[1], nodes, 0) is not None


def test_a_suspect_whose_node_hangs_is_made_by_another_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.remote.dispatch.time.monotonic", lambda: 100.0)
    tasks = [task("a")]
    dispatch, nodes = Dispatch(tasks), [node(), node()]
    dispatch._waiting.clear()
    assert not dispatch.lost_with(tasks[0], node())
    nodes[0].given, nodes[0].since = {"a": tasks[0]}, {"a": 0.0}
    assert dispatch.straggler_for(nodes[1], nodes, 0) is tasks[0]
