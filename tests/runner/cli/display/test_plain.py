"""What a run says in a pipe or a log, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import events as ev
from runner.cli.display.lines import run_line
from runner.cli.display.plain import PlainDisplay

NONE: dict[str, int | None] = {"vram": None, "ram": None}


class RecordedDisplay:
    """A display whose clock goes as the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self._display = PlainDisplay(lambda: self.now, self.lines.append)

    def take(self, event: ev.Event, seconds: float = 0.0) -> list[str]:
        """The lines for an event that comes so many seconds after the one before."""
        self.now += seconds
        before = len(self.lines)
        self._display.take(event)
        return self.lines[before:]

    def start(self, items: int, distinct: int | None = None, stage: str = "draw") -> None:
        self.take(
            ev.StageStarted(stage=stage, items=items, distinct=distinct, placement="resident", predicted=NONE)
        )
        self.take(ev.StageReady(stage=stage, seconds=9.0), 9.0)

    def step(self, item: str, step: int, steps: int, seconds: float, stage: str = "draw") -> list[str]:
        return self.take(ev.Progress(stage=stage, item=item, step=step, steps=steps), seconds)


def done(item: str, key: str = "") -> ev.ItemFinished:
    return ev.ItemFinished(stage="draw", item=item, key=key or item, status="done", seconds=1.0)


def test_a_long_item_has_a_line_about_once_a_minute_with_rate_and_time_left() -> None:
    display = RecordedDisplay()
    display.start(2)
    lines = [line for step in range(1, 101) for line in display.step("fox", step, 1000, 7.0)]
    assert lines[:2] == [
        "draw 0/2: fox step 1/1000, 7.00 s/step, ETA 3 h 53 min",
        "draw 0/2: fox step 10/1000, 7.00 s/step, ETA 3 h 52 min",
    ]
    assert 10 <= len(lines) <= 12
    assert display.step("fox", 1000, 1000, 60.0)[0].startswith("draw 0/2: fox step 1000/1000, ")


def test_a_short_item_has_a_line_at_a_tenth_and_a_quick_one_none() -> None:
    display = RecordedDisplay()
    display.start(2)
    assert [line for step in range(1, 21) for line in display.step("quick", step, 20, 0.2)] == []
    assert display.take(done("quick")) == ["draw 1/2 quick 1.00 s"]
    lines = [line for step in range(1, 21) for line in display.step("slow", step, 20, 1.0)]
    assert 3 <= len(lines) <= 4
    assert lines[0].startswith("draw 1/2: slow step 5/20, ")


def test_what_was_there_before_makes_no_item_look_quick() -> None:
    display = RecordedDisplay()
    display.start(1)
    resumed = ev.Resumed(stage="draw", item="L00", step=330, steps=1000, seconds=9.0)
    assert display.take(resumed) == ["draw L00 goes on from step 330 of 1000"]
    display.step("L00", 331, 1000, 1.0)
    (line,) = display.step("L00", 390, 1000, 59.0)[:1]
    # two steps had a line within a minute, and sixty were made: the time left counts those made
    assert line.endswith("ETA 10 min 10 s")


def test_items_in_lockstep_and_those_that_share_their_work_count_as_items() -> None:
    display = RecordedDisplay()
    display.start(3, distinct=2)
    assert display.lines == ["draw: 3 items (2 distinct) (resident)"]
    display.step("a", 1, 4, 30.0)
    (line,) = display.step("b", 1, 4, 30.0)
    assert line == "draw 0/3: b step 1/4 and 1 more under way, 30.00 s/step, ETA 3 min 0 s"
    assert display.take(done("a", "k")) == ["draw 1/3 a 1.00 s"]
    assert display.take(done("c", "k")) == ["draw 2/3 c 1.00 s"]
    (line,) = display.step("b", 2, 4, 60.0)
    assert "draw 2/3: b step 2/4, " in line
    assert line.endswith("ETA 40.0 s")  # of two pieces of work half a one is left, after two minutes


def test_an_item_that_is_tried_again_begins_anew() -> None:
    display = RecordedDisplay()
    display.start(1)
    display.step("fox", 9, 10, 10.0)
    display.take(ev.Retrying(stage="draw", item="fox", error="no"))
    (line,) = display.step("fox", 1, 10, 70.0)
    assert line.endswith("ETA 12 min 0 s")


def test_a_stage_named_fetch_is_no_download() -> None:
    display = RecordedDisplay()
    display.start(1, stage="fetch")
    (line,) = display.step("fox", 5, 10, 10.0, stage="fetch")
    assert line.startswith("fetch 0/1: fox step 5/10, ")
    (line,) = display.take(ev.FetchProgress(source="some/model", done=1 << 30, total=4 << 30), 10.0)
    assert line == "fetching some/model: 1.00 GiB of 4.00 GiB"


def test_what_stops_a_run_comes_before_the_line_that_ends_it() -> None:
    display = RecordedDisplay()
    display.start(1)
    display.take(ev.Warned(kind="prompt_cut", message="cut", stage="draw", item="fox"))
    end = ev.RunFinished(exit_code=7, outputs=[], seconds=2.0, error="its worker died\n  | trace")
    assert display.take(end) == [
        "warning: draw: prompt cut for 1 item: fox",
        "error: its worker died\n  | trace",
        "stopped with exit code 7 in 2.0 s",
    ]


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (["runs/x/outputs/fox.png"], "1 output: runs/x/outputs/fox.png"),
        (["runs/x/outputs/fox.png", "runs/x/outputs/owl.png"], "2 outputs in runs/x/outputs/"),
    ],
)
def test_one_output_is_shown_by_its_path_and_several_by_their_folder(outputs: list[str], text: str) -> None:
    absolute = [str(Path.cwd() / path) for path in outputs]
    end = ev.RunFinished(exit_code=0, outputs=absolute, seconds=2.0)
    assert run_line(end, idle=False) == f"done in 2.0 s; {text}"
    assert run_line(end, idle=True) == f"nothing to do; {text}"
