"""The page of a run directory: what it holds, however the run ended, and what it never lets happen."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pages import GIB, card, data_of

from runner.events import Memory, Warned
from runner.report import write
from runner.report.items import TRACEBACKS
from runner.report.live import LiveReport
from runner.rundir.memory_series import LIMIT, Series

if TYPE_CHECKING:
    import pytest
    from pages import Telling
    from project import Project


NONE = {"vram": None, "ram": None}
TIMED = {"time": "2026-11-22T02:00:00.000Z", "stage": "draw", "seconds": 1.0}
EVENTS: list[dict[str, Any]] = [
    {
        "event": "run_started",
        **TIMED,
        "run": "r",
        "manifest": "m",
        "stages": ["draw"],
        "items": 1,
        "machine": {},
    },
    {
        "event": "stage_started",
        **TIMED,
        "items": 1,
        "placement": "p",
        "predicted": NONE,
        "budget": NONE,
        "last": False,
    },
    {
        "event": "item_finished",
        **TIMED,
        "item": "fox",
        "key": "k",
        "status": "failed",
        "error": "no",
        "params": {},
    },
    {"event": "out_of_memory", **TIMED, "placement": "p", "predicted": NONE, "measured": NONE, "next": None},
    {
        "event": "stage_finished",
        **TIMED,
        "predicted": NONE,
        "measured": NONE,
        "cached": 0,
        "memory": [[0, 1]],
    },
    {"event": "run_finished", **TIMED, "exit_code": 1, "outputs": []},
]
FIELDS = sorted(
    {*(name for event in EVENTS for name in event), "versions", "streamed", "traceback", "attempts"}
    - {"event"}
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("</script>"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["ram", "prompt"]), inner, max_size=2)
    ),
    max_leaves=3,
)
KEY, OTHER = "ab" * 32, "cd" * 32
HOSTILE = "</script><script>alert(1)</script><!-- {{data}} {{script}} "


def test_what_a_run_made_and_how_it_went(toy: Project) -> None:
    outcome = toy.runner("run", "toy.toml", "--set", "budget.ram=4GiB")

    assert outcome.code == 0, outcome
    data = data_of(toy.folder / "runs/toy/report.html")
    one = card("one", data)
    assert (one["status"], one["params"]["prompt"], one["params"]["seed"]) == ("done", "one", 0)
    assert one["text"].startswith("ONE")
    assert set(one["seconds"]) == {"make", "write"}
    assert (toy.folder / "runs/toy/outputs" / one["file"]).exists()
    (run,) = data["runs"]
    assert (run["state"], run["made"], run["machine"]["cores"] > 0) == ("done", 2, True)
    assert {"python", "torch", "toy-plugin"} <= set(run["versions"])
    make = run["stages"][0]
    assert (make["placement"], make["device"], make["dtype"]) == ("resident", "cpu", "float32")
    assert make["budget"]["ram"] == 4 * GIB
    assert make["measured"]["ram"] >= max(held for _, held in make["memory"]) > 0
    assert data["live"] is False
    assert "toy.make" in data["manifest"]
    # written later, it says the same
    page = toy.folder / "runs/toy/report.html"
    page.unlink()
    write(page.parent)
    again = data_of(page)
    assert again.pop("updated") > data.pop("updated")
    assert again == data


def test_nothing_in_the_data_leaves_its_element(reported: Telling) -> None:
    reported.start(1)
    reported.item("fox", KEY, HOSTILE, params={"prompt": HOSTILE}, traceback=HOSTILE)
    reported.end(1)
    reported.directory.manifest.write_text(f"# {HOSTILE}")
    page = reported.page()

    fox = card("fox", data_of(page))
    assert (fox["params"]["prompt"], fox["error"], fox["traceback"]) == (HOSTILE, HOSTILE, HOSTILE)
    text = page.read_text()
    assert len(re.findall(r"<script", text)) == 2
    assert len(re.findall(r"</script", text)) == 2


def test_the_policy_names_our_script_and_style_and_no_network(reported: Telling) -> None:
    reported.start(0)
    text = reported.page().read_text()
    policy = dict(
        part.strip().split(" ", 1)
        for part in re.search(r'Security-Policy" content="([^"]*)"', text)[1].split(";")  # type: ignore[index]
    )
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        inside = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)[1]  # type: ignore[index]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "'self' file: data:"
    assert policy["media-src"] == "'self' file:"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_numbers_that_a_browser_has_not_are_text(reported: Telling) -> None:
    reported.start(1)
    reported.item("fox", KEY, params={"seed": 2**64 - 1, "steps": 4, "scale": float("inf")})
    reported.end()
    assert card("fox", data_of(reported.page()))["params"] == {
        "seed": str(2**64 - 1),
        "steps": 4,
        "scale": "inf",
    }


def test_without_a_journal_pictures_tell_of_themselves(reported: Telling) -> None:
    reported.start(1)
    reported.item("fox", KEY)
    reported.end()
    reported.directory.journal.unlink()
    fox = card("fox", data_of(reported.page()))
    assert (fox["key"], fox["params"], fox["status"]) == (
        KEY,
        {"prompt": "a picture of fox", "seed": 7},
        "done",
    )


def test_pictures_of_an_earlier_manifest_come_last(reported: Telling) -> None:
    for key in (KEY, OTHER):
        reported.start(2)
        reported.item("fox", key)
        reported.item("owl", key)
        reported.end()
    cards = [(one["id"], one["key"], one["status"]) for one in data_of(reported.page())["cards"]]
    assert cards[:2] == [("fox", OTHER, "done"), ("owl", OTHER, "done")]
    assert sorted(cards[2:]) == [("fox", KEY, "earlier"), ("owl", KEY, "earlier")]


def test_warnings_are_on_the_page(reported: Telling) -> None:
    reported.start(1)
    reported.events.emit(Warned(kind="prompt_cut", message=HOSTILE, stage="draw", item="fox"))
    reported.end()
    (found,) = data_of(reported.page())["runs"][0]["warnings"]
    assert found == {
        "stage": "draw",
        "kind": "prompt cut",
        "count": 1,
        "first": [{"item": "fox", "message": HOSTILE}],
    }


def test_a_picture_that_was_deleted_is_gone(reported: Telling) -> None:
    reported.start(2)
    reported.item("fox", KEY)
    reported.item("owl", OTHER)
    reported.end()
    reported.directory.output("fox", KEY, "", ".png").unlink()
    assert [one["id"] for one in data_of(reported.page())["cards"]] == ["owl"]


def test_what_failed_is_reported_until_the_next_run(reported: Telling) -> None:
    reported.start(1)
    reported.item("fox", KEY, "ValueError: no", traceback="Traceback: no", attempts=2)
    reported.end(1)
    failed = card("fox", data_of(reported.page()))
    assert (failed["status"], failed["error"], failed["attempts"]) == ("failed", "ValueError: no", 2)
    reported.start(1)
    reported.item("owl", KEY, "ValueError: no")
    reported.item("owl", KEY)
    reported.end()
    assert [(one["id"], one["status"]) for one in data_of(reported.page())["cards"]] == [("owl", "done")]


def test_tracebacks_are_kept_in_bounds(reported: Telling) -> None:
    reported.start(TRACEBACKS + 5)
    for n in range(TRACEBACKS + 5):
        reported.item(f"item-{n}", KEY, "no", traceback="Traceback: no")
    reported.end(1)
    cards = data_of(reported.page())["cards"]
    assert len(cards) == TRACEBACKS + 5
    assert sum("traceback" in one for one in cards) == TRACEBACKS


def test_a_fall_to_a_lower_placement_is_reported(reported: Telling) -> None:
    reported.start(1)
    held = {"vram": None, "ram": 3 * GIB}
    reported.fall(held)
    reported.item("fox", KEY)
    reported.end()
    (stage,) = data_of(reported.page())["runs"][0]["stages"]
    (fall,) = stage["lowered"]
    assert (fall["placement"], fall["next"], fall["measured"], stage["placement"]) == (
        "resident",
        "stream",
        held,
        "stream",
    )


def test_a_journal_with_a_torn_end_still_gives_a_page(reported: Telling) -> None:
    reported.start(1)
    reported.item("fox", KEY)
    with reported.directory.journal.open("a") as journal:
        journal.write(
            '{"event": "item_finished", "item": 5}\n{"event": "stage_finished"}\n{"event": "run_fin'
        )
    assert card("fox", data_of(reported.page()))["status"] == "done"


@settings(max_examples=60, deadline=None)
@given(
    event=st.sampled_from(EVENTS),
    changes=st.dictionaries(st.sampled_from(FIELDS), ODD, min_size=1, max_size=3),
)
def test_whatever_an_event_says_the_page_can_be_read(
    event: dict[str, Any], changes: dict[str, object]
) -> None:
    with TemporaryDirectory() as folder:
        lines = [json.dumps({**one, **changes} if one is event else one) for one in EVENTS]
        Path(folder, "journal.jsonl").write_text("\n".join(lines))
        data = data_of(write(Path(folder)))
    assert len(data["runs"]) <= 1


def test_a_page_that_cannot_be_written_costs_a_line_and_not_the_run(
    reported: Telling, capsys: pytest.CaptureFixture[str]
) -> None:
    reported.directory.report.mkdir(parents=True)
    live = LiveReport(reported.directory)
    reported.events.listeners.append(live)
    reported.start(1)
    reported.item("fox", KEY)
    reported.end()
    live.close()
    assert "report.html is not up to date: " in capsys.readouterr().err


def test_a_live_page_shows_memory_before_the_journal_has_it(reported: Telling) -> None:
    live = LiveReport(reported.directory)
    reported.events.listeners.append(live)
    reported.start(1)
    for _ in range(3):
        reported.events.emit(Memory(stage="draw", ram=GIB))
    live.close()
    (stage,) = data_of(reported.directory.report)["runs"][0]["stages"]
    assert max(held for _, held in stage["memory"]) == GIB == stage["measured"]["ram"]
    journal = reported.directory.journal.read_text().splitlines()
    assert [json.loads(line)["event"] for line in journal] == ["run_started", "stage_started"]


def test_a_series_keeps_its_peaks_however_long_it_is() -> None:
    series = Series()
    for n in range(100_000):
        series.add(n / 20, GIB if n in (7, 51_234) else n)
    assert len(series.points) <= LIMIT
    assert [held for _, held in series.points].count(GIB) == 2
    assert series.points == sorted(series.points)
    assert series.points[-1][1] == 99_999
