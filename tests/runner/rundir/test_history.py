"""What a journal tells of runs, whatever it looks like."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.events import decode
from runner.rundir.history import RunHistory, failed_items, read_runs
from runner.rundir.warnings import KEPT

if TYPE_CHECKING:
    from pathlib import Path

NONE = {"vram": None, "ram": None}
START = {"run": "r", "manifest": "r.toml", "stages": ["make", "write"], "items": 3}
KINDS = (
    "run_started",
    "stage_started",
    "item_finished",
    "out_of_memory",
    "stage_finished",
    "run_finished",
    "warning",
)
FIELDS = {
    *("time", "run", "manifest", "stages", "items", "stage", "placement", "predicted", "measured", "next"),
    *("cached", "seconds", "error", "exit_code", "outputs", "item", "status", "attempts", "traceback"),
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["done", "make", "2026-11-22T02:00:00.000Z", "2026-11-22", "\ud800", "9" * 5000])
    | st.sampled_from([10**400, NONE, {"vram": 10**400, "ram": "x"}, ["make"]]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["vram", "ram"]), inner),
    max_leaves=4,
)


def take(run: RunHistory, record: dict[str, Any]) -> None:
    """Hand a history an event as it stands in a journal."""
    event = decode(json.loads(json.dumps(record)))
    if event is not None:
        run.take(event)


def history(*events: tuple[str, dict[str, Any]]) -> RunHistory:
    run = RunHistory()
    for kind, fields in events:
        take(run, {"event": kind, "time": "2026-11-22T02:00:00.000Z", **fields})
    return run


def started(stage: str, items: int) -> tuple[str, dict[str, Any]]:
    return "stage_started", {"stage": stage, "items": items, "placement": "resident", "predicted": NONE}


def item(stage: str, name: str, error: str | None = None) -> tuple[str, dict[str, Any]]:
    status = "failed" if error else "done"
    return "item_finished", {"stage": stage, "item": name, "status": status, "error": error}


def finished(code: int, *outputs: str) -> tuple[str, dict[str, Any]]:
    return "run_finished", {"exit_code": code, "outputs": list(outputs), "seconds": 2.5}


def test_items_are_counted_once_wherever_they_failed() -> None:
    events = [("run_started", START), started("make", 2), item("make", "a"), item("make", "b", "no\nwhy")]
    run = history(*events, started("write", 1), item("write", "a"))
    assert (run.counts.made, run.counts.failed, run.counts.cached) == (1, 1, None)
    assert run.done is None
    ended = history(
        *events,
        started("write", 1),
        item("write", "a"),
        finished(1, "/o/a-01234567.txt", "/o/c-0-01234567.b.txt", "/o/c-0-01234567.txt"),
    )
    assert (ended.counts.made, ended.counts.failed, ended.counts.cached, ended.done) == (1, 1, 1, 2)
    assert ended.reason == "make b: no"


def test_runs_whose_outputs_are_tensors_are_counted_too() -> None:
    stages = {**START, "stages": ["make"]}
    work = [started("make", 2), item("make", "a"), item("make", "b", "no")]
    assert history(("run_started", stages), *work, finished(1)).done == 2
    assert history(("run_started", stages), finished(0)).done == 3
    assert history(("run_started", stages), *work[:2], finished(130)).done == 0


def test_an_item_that_was_tried_again_with_success_has_not_failed() -> None:
    run = history(("run_started", START), started("make", 1), item("make", "a", "no"), item("make", "a"))
    assert run.failures == []
    assert run.stages["make"].done == 1


def test_an_item_takes_what_its_attempts_took_and_one_of_a_key_takes_it_once() -> None:
    work = [
        ("a", "k", 3.0, None),
        ("b", "k", 3.0, None),
        ("c", "other", 9.0, "no"),
        ("c", "other", 7.0, None),
    ]
    items = [
        ("item_finished", {**item("make", name, error)[1], "key": key, "seconds": seconds})
        for name, key, seconds, error in work
    ]
    run = history(("run_started", START), started("make", 3), *items)
    assert run.stages["make"].seconds_an_item == 5.0
    assert history(("run_started", START), started("make", 3)).stages["make"].seconds_an_item is None


def test_what_any_last_stage_made_counts(tmp_path: Path) -> None:
    stages = {**START, "stages": ["draw", "caption"], "items": 2}
    (kind, first) = started("draw", 2)
    run = history(("run_started", stages), (kind, {**first, "last": True}), item("draw", "a"))
    assert run.counts.made == 1


def test_warnings_are_counted_by_stage_and_kind() -> None:
    cut = {"kind": "prompt_cut", "message": "too long", "stage": "make"}
    run = history(
        ("run_started", START),
        *(("warning", {**cut, "item": f"item-{n % 150}"}) for n in range(300)),
        ("warning", {"kind": "repaired", "message": "fetched again", "stage": None, "item": None}),
    )
    assert run.warnings.count == 301
    make, other = run.warnings
    assert (make.count, len(make.items), len(make.first)) == (300, 150, KEPT)
    assert make.line.startswith("make: prompt cut for 150 items: item-0, item-1, ")
    assert make.line.endswith(" and 145 more")
    assert (other.count, other.line) == (1, "repaired")


def test_a_stage_tells_the_placement_that_it_came_to() -> None:
    lowered = {
        "stage": "make",
        "placement": "resident",
        "predicted": NONE,
        "measured": NONE,
        "next": "stream",
    }
    end = {"stage": "make", "predicted": NONE, "measured": NONE, "cached": 0, "seconds": 1}
    run = history(
        ("run_started", START), started("make", 1), ("out_of_memory", lowered), ("stage_finished", end)
    )
    assert run.stages["make"].placement == "stream"


def test_what_failed_last_time_is_known_over_several_runs(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    runs = [[item("make", "a", "no"), item("make", "b", "no")], [item("make", "a")], [item("make", "c")]]
    lines = [
        json.dumps({"event": kind, "time": "2026-11-22T02:00:00Z", **fields})
        for work in runs
        for kind, fields in [("run_started", START), started("make", 2), *work]
    ]
    journal.write_text("\n".join(["torn", *lines, "{"]))
    assert [run.counts.failed for run in read_runs(journal)] == [2, 0, 0]
    assert failed_items(journal) == {"b"}
    assert list(read_runs(tmp_path / "none.jsonl")) == []


@settings(max_examples=300, deadline=None)
@given(
    # a few fields each: to draw whether each of twenty is there takes longer than all else
    st.lists(
        st.tuples(
            st.sampled_from(KINDS), st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES, max_size=6)
        )
    )
)
def test_no_journal_breaks_who_reads_it(events: list[tuple[str, dict[str, Any]]]) -> None:
    run = history(("run_started", START), started("make", 1))
    for kind, fields in events:
        take(run, {"event": kind, **fields})
    assert run.counts.made >= 0
    assert run.done is None or run.done <= max(run.items, len(run.outputs))
    run.reason.encode()
    assert run.started is None or run.latest is None or isinstance(run.latest - run.started, timedelta)
