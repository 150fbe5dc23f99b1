"""The display of a run on a terminal: lines for what has finished, and under them one live line."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from runner import events as ev
from runner.cli.display.lines import Line, Lines, preparing, status_of
from runner.cli.display.pace import StagePace
from runner.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ID_WIDTH = 32
BAR_WIDTH = 24
REFRESHES = 8  # a second
ECHO_ROOM = 8  # free columns: a terminal echoes Ctrl-C as ^C, which must not start a new row


class Part(NamedTuple):
    """A part of the live line. If there is no room for all, parts of the highest rank are left out first."""

    rank: int
    text: str
    style: str = ""


class MovingLine(Live):
    """A live display of one line that leaves no remains when the terminal gets narrower."""

    def __init__(self, render: Callable[[], Text], console: Console) -> None:
        self._make = render
        self._cells = 0
        super().__init__(
            get_renderable=self._line,
            console=console,
            refresh_per_second=REFRESHES,
            transient=True,
            redirect_stdout=False,  # data for a program
        )

    def refresh(self) -> None:
        # terminals wrap a line that has become too long, and rich would erase only its last row
        more = max(0, self._cells - 1) // max(self.console.width, 1)
        if more and self.is_started:
            self.console.file.write(f"\x1b[{more}A\r\x1b[J")
        super().refresh()

    def _line(self) -> Text:
        line = self._make()
        self._cells = line.cell_len
        return line


class LiveDisplay:
    """Shows the running stage in the last line, with the item's step, rate, time left and memory."""

    def __init__(self, ram: Mapping[str, int | None], clock: Callable[[], float] = time.monotonic) -> None:
        """``ram`` is the RAM budget of each stage in bytes."""
        self._budgets = ram
        self._clock = clock
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._spinner = Spinner("dots")
        self._lines = Lines()
        self._since = clock()
        self._state = "preparing"
        self._pace: StagePace | None = None
        self._prepared: ev.FetchProgress | ev.PrepareProgress | None = None
        self._held = 0
        self._live = MovingLine(self._render, self._console)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def take(self, event: ev.Event) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            self._take(event)

    def _take(self, event: ev.Event) -> None:
        now = self._clock()
        self._update(event, now)
        lines = self._lines.of(event)
        if isinstance(event, ev.ItemFinished) and event.failed:
            lines = [Line(f"{event.stage} {event.item} {status_of(event)}", "red")]
        if isinstance(event, ev.RunFinished):
            self._live.stop()
        for line in lines:
            self._console.print(Text(line.text, line.style), soft_wrap=True)

    def _update(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.StageStarted():
                self._pace, self._prepared, self._held = StagePace(event, now), None, 0
            case ev.StageFinished():
                self._pace, self._state, self._since = None, "preparing", now
            case ev.Waiting():
                self._state, self._since = "waiting", now
            case ev.FetchProgress() | ev.PrepareProgress():
                self._prepared = event if event.done < event.total else None
            case ev.Memory():
                self._held = event.ram
            case _ if self._pace is not None:
                self._pace.take(event, now)

    def _render(self) -> Text:
        now = self._clock()
        spin = self._spinner.render(now)
        line = Text.assemble(spin if isinstance(spin, Text) else "", " ", no_wrap=True, overflow="ellipsis")
        line.append_text(_fitted(self._parts(now), self._console.width - ECHO_ROOM - len(line)))
        return line

    def _parts(self, now: float) -> list[Part]:
        pace, prepared = self._pace, self._prepared
        if pace is not None:
            return self._stage_parts(pace, now)
        if prepared is not None:
            size = f"{format_size(prepared.done)} of {format_size(prepared.total)}"
            if isinstance(prepared, ev.FetchProgress):
                return [Part(1, "fetching"), Part(0, size), Part(2, prepared.source, "dim")]
            return [Part(1, preparing(prepared)), Part(0, size)]
        return [Part(0, self._state), Part(1, _seconds(now - self._since))]

    def _stage_parts(self, pace: StagePace, now: float) -> list[Part]:
        budget = self._budgets.get(pace.stage)
        limit = f" of {format_size(budget)}" if budget else ""
        memory = Part(4, f"RAM {format_size(self._held)}{limit}" if self._held else "", "dim")
        head = Part(1, pace.stage, "bold")
        if pace.loaded is None:
            return [head, Part(0, "loading"), Part(2, _seconds(now - pace.started)), memory]
        step, left, filled = pace.step, pace.left(now), round(BAR_WIDTH * pace.done)
        return [
            head,
            Part(6, "━" * filled + "─" * (BAR_WIDTH - filled), "cyan"),
            Part(0, f"{pace.finished}/{pace.items}"),
            Part(3, f"{_short(step.item)} step {step.step}/{step.steps}" if step else ""),
            Part(5, pace.rate()),
            Part(2, "" if left is None else f"ETA {_seconds(left)}"),
            memory,
        ]


def _fitted(parts: list[Part], width: int) -> Text:
    """The parts that fit into ``width`` columns, in their order."""
    shown = [part for part in parts if part.text]
    while len(shown) > 1 and sum(len(part.text) + 2 for part in shown) - 2 > width:
        shown.remove(max(shown))
    line = Text("  ").join(Text(part.text, part.style) for part in shown)
    line.truncate(max(width, 0), overflow="ellipsis")
    return line


def _seconds(seconds: float) -> str:
    """Whole seconds below a minute, to save room."""
    return f"{seconds:.0f} s" if seconds < 60 else format_duration(seconds)


def _short(item: str) -> str:
    """An item's id, cut to ``ID_WIDTH``."""
    return item if len(item) <= ID_WIDTH else f"{item[: ID_WIDTH - 1]}…"
