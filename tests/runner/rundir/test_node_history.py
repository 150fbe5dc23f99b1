"""The nodes of a run from its events: who took part, what each made, and how it ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runner import events as ev
from runner.rundir.history import RunHistory

BEGUN = datetime(2026, 12, 1, tzinfo=UTC)


def ended(item: str, node: str | None, at: float, seconds: float, status: str = "done") -> ev.ItemFinished:
    time = BEGUN + timedelta(seconds=at)
    return ev.ItemFinished(stage="a", item=item, status=status, seconds=seconds, node=node, time=time)


def test_a_run_on_one_machine_has_none() -> None:
    run = RunHistory()
    run.take(ended("x", None, 1, 1))
    assert run.nodes.all == {}


def test_what_nodes_made_and_when() -> None:
    run = RunHistory()
    for event in (
        ev.NodeJoined(node="one", host="h", device="cuda:0"),
        ended("x", "one", 5, 2),
        ended("y", "one", 9, 3),
        ended("z", "one", 10, 1, "failed"),
        ev.NodeRefused(node="two", code=5, reason="too small"),
        ev.NodeLost(node="one", reason="gone", stage="a", items=["v"]),
        ev.NodeJoined(node="three", host="h"),
    ):
        run.take(event)
    one, two, three = run.nodes.all.values()
    assert (one.host, one.device, one.done, one.failed, one.seconds) == ("h", "cuda:0", 2, 1, 6)
    assert (one.state, one.reason) == ("lost", "gone")
    assert (two.name, two.state, two.reason, two.done) == ("two", "left out", "too small", 0)
    assert three.state == "joined"
    share = one.shares["a"]
    assert share.begun == BEGUN + timedelta(seconds=3)
    assert share.ended == BEGUN + timedelta(seconds=10)


def test_a_node_that_comes_again_has_joined() -> None:
    run = RunHistory()
    run.take(ev.NodeLost(node="one", reason="gone"))
    run.take(ev.NodeJoined(node="one", host="h"))
    (node,) = run.nodes.all.values()
    assert (node.state, node.reason) == ("joined", "")


def test_seconds_that_no_clock_has_are_taken() -> None:
    """A journal may come from anywhere."""
    run = RunHistory()
    run.take(ended("x", "one", 5, 1e18))
    share = run.nodes.all["one"].shares["a"]
    assert share.begun == share.ended == BEGUN + timedelta(seconds=5)
