"""What a terminal shows during a run, and after it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from screen import Screen, resize, take_terminal, terminal
from toy_plugin import BEHAVING
from waiting import wait_until

from runner import events as ev
from runner.cli.display.live import ECHO_ROOM, LiveDisplay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from project import Project

NONE: dict[str, int | None] = {"vram": None, "ram": None}
STARTED = ev.StageStarted(stage="draw", items=4, placement="resident", predicted=NONE)
END = ev.RunFinished(exit_code=130, outputs=[], seconds=3.0, error="stopped in stage 'draw'")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


WIDTHS = pytest.mark.parametrize("width", [20, 40, 80, 120])


@contextmanager
def terminal_as_stderr(width: int, patch: pytest.MonkeyPatch) -> Iterator[Screen]:
    with (
        terminal(width) as screen,
        replaced(0, screen.theirs),  # whose width rich looks at
        os.fdopen(os.dup(screen.theirs), "w") as stderr,
        patch.context() as within,
    ):
        within.setattr(sys, "stderr", stderr)
        within.setenv("TERM", "xterm-256color")
        within.delenv("COLUMNS", raising=False)
        within.delenv("NO_COLOR", raising=False)
        yield screen


@contextmanager
def replaced(descriptor: int, by: int) -> Iterator[None]:
    before = os.dup(descriptor)
    os.dup2(by, descriptor)
    try:
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)


def moving(screen: Screen, text: str) -> str:
    """The line that moves, as soon as it says that."""
    wait_until(lambda: screen.read(0) and text in "".join(screen.lines[-1:]), 20, f"it says '{text}'")
    return screen.lines[-1]


def has_echoed(screen: Screen, count: int) -> bool:
    screen.read(0)
    return screen.echoed == count


@WIDTHS
def test_loading_has_a_spinner_and_its_time_and_what_is_left_is_named(
    width: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        terminal_as_stderr(width, monkeypatch) as screen,
        LiveDisplay({"draw": 8 << 30}, clock) as display,
    ):
        assert moving(screen, "preparing")[2:] == ("preparing  0 s" if screen.width > 20 else "preparing")
        clock.now = 1.0
        display.take(STARTED)
        clock.now = 8.0
        line = moving(screen, "7 s" if screen.width > 30 else "loading")
        assert line[0] in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
        assert line[2:] == ("draw  loading  7 s" if screen.width > 30 else "loading")
        display.take(ev.StageReady(stage="draw", seconds=7.0))
        clock.now = 18.0
        display.take(ev.Progress(stage="draw", item="fox", step=5, steps=20))
        line = moving(screen, "ETA" if screen.width > 30 else "0/4")
        assert "0/4" in line
        assert ("ETA 2 min 30 s" in line) == (screen.width > 30)
        assert ("fox step 5/20" in line) == (screen.width > 60)
        assert ("10.00 s/step" in line) == (screen.width > 60)
        assert len(line) <= screen.width - ECHO_ROOM
        display.take(END)


@WIDTHS
def test_nothing_of_the_moving_line_is_left_after_ctrl_c(
    width: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal_as_stderr(width, monkeypatch) as screen:
        with LiveDisplay({}, clock) as display:
            display.take(STARTED)
            display.take(ev.StageReady(stage="draw", seconds=1.0))
            display.take(ev.Progress(stage="draw", item="fox", step=5, steps=20))
            for count in range(1, 4):
                moving(screen, "0/4")
                screen.type("\x03")
                wait_until(partial(has_echoed, screen, count), 20, "it is echoed")
            display.take(ev.Warned(kind="odd", message="no", stage="draw", item="fox"))
            display.take(END)
        screen.read()
    shown = "".join(line.ljust(screen.width) for line in screen.lines)
    assert [part for part in ("ETA", "0/4", "^C", "⠋") if part in shown] == []
    assert shown.rstrip().endswith("the same command goes on from there")


def test_a_terminal_that_gets_narrower_keeps_no_row_of_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal_as_stderr(100, monkeypatch) as screen:
        with LiveDisplay({}, clock) as display:
            display.take(STARTED)
            display.take(ev.StageReady(stage="draw", seconds=1.0))
            display.take(ev.Memory(stage="draw", ram=8 << 30))
            display.take(ev.Progress(stage="draw", item="a-fox-in-the-snow", step=5, steps=20))
            long = moving(screen, "fox")
            assert len(long) > 40
            # the terminal breaks the line, as those do that keep all of it
            screen.width = 40
            screen.rows[-1:] = [list(long[:40]), list(long[40:])]
            screen.row, screen.column = screen.row + 1, len(long) - 40
            resize(screen.theirs, 40)
            moving(screen, "0/4")
            display.take(END)
        screen.read()
    assert not any("fox" in line for line in screen.lines)
    assert screen.lines[0].startswith("draw: 4 items")


def test_the_last_line_of_a_run_says_what_became_of_it(toy: Project) -> None:
    toy.write("toy.toml", BEHAVING.format("wait"))
    toy.environment.pop("COLUMNS")
    toy.environment["TERM"] = "xterm"
    with (
        terminal(80) as screen,
        toy.start(
            *("run", "toy.toml", "--json"),
            stdin=screen.theirs,
            stderr=screen.theirs,
            start_new_session=True,
            preexec_fn=take_terminal,
        ) as process,
    ):
        screen.let_go()
        moving(screen, "1/2")
        screen.type("\x03")
        while screen.read():
            pass
        assert process.stdout is not None
        kinds = [json.loads(line)["event"] for line in process.stdout]
        assert process.wait(20) == 130
    assert [line for line in screen.lines if "⠋" in line or "1/2" in line] == []
    assert "error: " not in "".join(screen.lines)
    end = "".join(screen.lines[-2:])
    assert end.startswith("interrupted in ")
    assert end.endswith(", stopped in stage 'make'; the same command goes on from there")
    # events go where they belong, terminal or not
    assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
