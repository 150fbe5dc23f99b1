"""Whether a run goes on without a node: while one may come, and not longer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import BudgetError, ModelError, StageError
from runner.remote.members import GRACE, Members
from runner.remote.node import State


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("runner.remote.members.time", made)
    return made


def members(reason: str, *states: State) -> Members:
    """Nodes in these states, and places of which a plugin says ``reason``."""
    said: list[str] = []
    run: Any = SimpleNamespace(publisher=SimpleNamespace(waiting=said.append))
    places: Any = SimpleNamespace(new=list, waiting=lambda: reason, close=lambda: None)
    made = Members(run, "away", places, SimpleNamespace())  # type: ignore[arg-type]
    for n, state in enumerate(states):
        found: Any = SimpleNamespace(
            name=f"n{n}", state=state, is_ready=state is State.READY, reason="why", code=0
        )
        if state is State.REFUSED:
            found.code = 5 if n == 0 else 8
        made.nodes.append(found)
    made.greet()
    return made


def test_where_all_are_refused_the_run_ends_at_once_with_the_largest_code(clock: Clock) -> None:
    with pytest.raises(BudgetError, match="no node can take part:\n  n0  why"):
        members("", State.REFUSED).check_left()
    with pytest.raises(ModelError):
        members("", State.REFUSED, State.REFUSED).check_left()


@pytest.mark.parametrize("states", [(), (State.GONE,), (State.GONE, State.REFUSED)])
def test_where_nobody_is_left_a_run_waits_a_while(clock: Clock, states: tuple[State, ...]) -> None:
    found = members("", *states)
    found.check_left()
    clock.now += GRACE - 1
    found.check_left()
    clock.now += 2
    with pytest.raises((StageError, ModelError)):
        found.check_left()


@pytest.mark.parametrize("state", [State.READY, State.STARTING])
def test_where_somebody_is_left_it_goes_on(clock: Clock, state: State) -> None:
    found = members("", State.GONE, state)
    found.check_left()
    clock.now += 10 * GRACE
    found.check_left()


def test_while_the_plugin_says_why_it_waits_for_good(clock: Clock) -> None:
    found = members("3 of 4", State.REFUSED)
    found.check_left()
    clock.now += 10 * GRACE
    found.check_left()
