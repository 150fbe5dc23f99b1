"""The display of a run in a pipe or a log: plain lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from runner import events as ev
from runner.cli.display.lines import Lines, preparing, status_of
from runner.cli.display.pace import Pauses, StagePace
from runner.cli.output import say
from runner.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable


class PlainDisplay:
    """Writes lines to stderr: for what finishes, and for progress after pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, say: Callable[[str], None] = say) -> None:
        self._clock = clock
        self._say = say
        self._lines = Lines()
        self._pauses = Pauses(clock)
        self._pace: StagePace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clear."""

    def take(self, event: ev.Event) -> None:
        now = self._clock()
        if isinstance(event, ev.StageStarted):
            self._pace = StagePace(event, now)
        elif self._pace is not None:
            self._pace.take(event, now)
        lines = [line.text for line in self._lines.of(event)]
        match event:
            case ev.ItemFinished() if self._pace is not None:
                count = f"{self._pace.finished}/{self._pace.items}"
                where = f" on {event.node}" if event.node else ""
                lines = [f"{event.stage} {count} {event.item} {status_of(event)}{where}"]
            case ev.Progress() if self._pauses.is_due(event.item, event.step / max(event.steps, 1)):
                lines = [self._progress(event, now)]
            case ev.FetchProgress() if self._pauses.is_due(event.source, event.done / max(event.total, 1)):
                lines = [f"fetching {event.source}: {format_size(event.done)} of {format_size(event.total)}"]
            case ev.PrepareProgress() if self._pauses.is_due(
                event.component, event.done / max(event.total, 1)
            ):
                size = f"{format_size(event.done)} of {format_size(event.total)}"
                lines = [f"{event.stage}: {preparing(event)}: {size}"]
        for line in lines:
            self._say(line)
        if lines or isinstance(event, ev.StageReady):
            self._pauses.reset()

    def _progress(self, event: ev.Progress, now: float) -> str:
        """The step of an item, and the stage's rate and time left."""
        parts = [f"{event.item} step {event.step}/{event.steps}"]
        pace = self._pace
        if pace is None:
            return f"{event.stage} {parts[0]}"
        if pace.under_way > 1:
            parts[0] += f" and {pace.under_way - 1} more under way"
        if rate := pace.rate():
            parts.append(rate)
        if (left := pace.left(now)) is not None:
            parts.append(f"ETA {format_duration(left)}")
        return f"{event.stage} {pace.finished}/{pace.items}: {', '.join(parts)}"
