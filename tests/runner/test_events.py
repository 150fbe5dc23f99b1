"""Events as JSON and back: what one version writes, another reads."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import events as ev
from runner.events import decode, encode

NONE: dict[str, int | None] = {"vram": None, "ram": 3}
TIME = datetime(2026, 11, 22, 2, 0, 0, 5000, tzinfo=UTC)
EVENTS = [
    ev.RunStarted(run="r", manifest="m", stages=["a"], items=1, machine={"cores": [2]}, versions={"x": "1"}),
    ev.RunFinished(exit_code=1, outputs=["a.png"], seconds=1.5, error="no"),
    ev.Waiting(reason="another"),
    ev.FetchProgress(source="a/b", done=1, total=2),
    ev.Fetched(source="a/b", commit="c", before=None, folder="/x"),
    ev.ManifestsFinished(exit_code=1, manifests=[{"manifest": "a.toml"}]),
    ev.StageStarted(stage="a", items=3, distinct=2, placement="stream", predicted=NONE, last=True),
    ev.StageReady(stage="a", seconds=1.0),
    ev.Memory(stage="a", ram=1 << 40),
    ev.OutOfMemory(stage="a", placement="p", predicted=NONE, measured=NONE, error="no", next=None),
    ev.WorkerDied(stage="a", items=["x"], error="no", node="n"),
    ev.NodeJoined(node="n", host="h", device="cpu", stages={"a": "stream"}),
    ev.NodeRefused(node="n", code=5, reason="too small"),
    ev.NodeLost(node="n", reason="gone", stage="a", items=["x"]),
    ev.StageFinished(
        stage="a",
        seconds=1.0,
        cached=1,
        predicted=NONE,
        measured=NONE,
        streamed={"read": 5, "waited": 0.5},
        memory=[(0.05, 7)],
    ),
    ev.Progress(stage="a", item="x", step=1, steps=2),
    ev.Resumed(stage="a", item="x", step=1, steps=2, seconds=0.5),
    ev.StateDiscarded(stage="a", item="x", reason="old"),
    ev.Warned(kind="odd", message="m", stage=None, item=None, details={"words": ["a"]}),
    ev.Retrying(stage="a", item="x", error="no", traceback="t", attempts=2),
    ev.ItemFinished(stage="a", item="x", key="k", status="done", seconds=1.0, params={"seed": 2**64 - 1}),
    ev.Ready(),
    ev.Checked(problem="no"),
    ev.MeasuringShapes(stage="a", sizes=2),
    ev.Measured(activations={"peak": 5}, error=""),
    ev.ItemStarted(item="x"),
    ev.Alive(),
    ev.Wanting(),
    ev.Prepared(done=1, total=2),
    ev.PrepareProgress(stage="a", component="c", scheme="int8", done=1, total=2),
    ev.Stuck(item="x", seconds=9.0),
    ev.Failed(code=7, error="no"),
    ev.Finished(vram=None, vram_reserved=None, ram=1, streamed=None),
]
KINDS = [event.event for event in EVENTS]
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["ram", "vram"]), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("event", EVENTS, ids=KINDS)
def test_what_is_written_is_read_again(event: ev.Event) -> None:
    stamped = dataclasses.replace(event, time=TIME)
    written = json.loads(json.dumps(encode(stamped)))
    assert (written["event"], written["time"]) == (event.event, "2026-11-22T02:00:00.005Z")
    assert encode(decode(written) or event) == encode(stamped)
    assert encode(decode(encode(event)) or stamped) == encode(event)


def test_every_kind_is_tried_here() -> None:
    assert {kind.event for kind in ev.Event.__subclasses__()} == set(KINDS)


def test_what_is_not_known_is_passed_over() -> None:
    later = {"event": "waiting", "reason": "x", "since": [1], "time": "yesterday"}
    assert decode(later) == ev.Waiting(reason="x")
    others: tuple[Any, ...] = (
        {"event": "later", "reason": "x"},
        {"reason": "x"},
        {"event": "waiting"},
        [],
        None,
        "waiting",
    )
    for other in others:
        assert decode(other) is None


def test_an_older_journal_is_read() -> None:
    """Fields that were added since have their defaults."""
    old = {"stage": "a", "items": 3, "placement": "resident", "predicted": NONE}
    started = decode({"event": "stage_started", **old})
    assert isinstance(started, ev.StageStarted)
    assert (started.distinct, started.budget, started.last) == (None, {}, False)
    assert encode(ev.RunFinished(exit_code=0, outputs=[], seconds=1.0)).keys() == {
        *("event", "exit_code", "outputs", "seconds"),
    }


@settings(max_examples=300, deadline=None)
@given(event=st.sampled_from(EVENTS), odd=st.dictionaries(st.integers(0, 9), ODD, max_size=3))
def test_whatever_stands_in_a_field_the_event_is_of_its_types_or_none(
    event: ev.Event, odd: dict[int, object]
) -> None:
    record = encode(event)
    names = list(record)
    found = decode(record | {names[n % len(names)]: value for n, value in odd.items()})
    assert found is None or json.loads(json.dumps(encode(found)))["event"] in KINDS
    if isinstance(found, ev.StageFinished):
        assert all(isinstance(value, int | None) for value in found.measured.values())
        assert abs(found.seconds) < 1 << 62
