"""Progress, rate and remaining time of a stage. Times are in seconds, of a clock that the caller reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_SILENCE = 60.0  # seconds between two lines while a stage runs
SHORTEST_SILENCE = 5.0  # seconds before the line of the next tenth of an item


class StagePace:
    """The progress of one stage. Items that share a key share the work and finish together."""

    def __init__(self, event: ev.StageStarted, now: float) -> None:
        self.stage = event.stage
        self.items = event.items
        self.finished = 0
        """Items that are done or failed."""
        self.started = now
        self.loaded: float | None = None
        """When the components were loaded and items started."""
        self.step: ev.Progress | None = None
        """The latest step of an unfinished item."""
        self._distinct = event.items if event.distinct is None else event.distinct
        self._ended: set[str] = set()
        """Keys that are done or failed."""
        self._parts: dict[str, float] = {}
        """The part of each unfinished item that is done, 0 to 1."""
        self._origins: dict[str, float] = {}
        """The part of each item that was done before this run."""
        self._steps = 0
        self._latest = now

    def take(self, event: ev.Event, now: float) -> None:
        """Update the progress with the next event of the stage."""
        match event:
            case ev.StageReady():
                self.loaded = self.loaded or now
            case ev.Resumed():
                part = event.step / max(event.steps, 1)
                if event.item not in self._parts:
                    self._origins[event.item] = part
                self._parts[event.item] = part
            case ev.Progress():
                self.step = event
                self._steps += 1
                self._parts[event.item] = event.step / max(event.steps, 1)
            case ev.Retrying():  # it starts again
                self._parts.pop(event.item, None)
                self._origins.pop(event.item, None)
            case ev.ItemFinished():
                self.finished += 1
                self._ended.add(event.key or event.item)
                self._parts.pop(event.item, None)
                if self.step is not None and self.step.item == event.item:
                    self.step = None
            case _:
                return
        self._latest = now

    @property
    def under_way(self) -> int:
        """The number of items that have had a step and are not finished."""
        return len(self._parts)

    @property
    def done(self) -> float:
        """The part of the stage's work that is done, 0 to 1."""
        return min(1.0, self._made / max(self._distinct, 1))

    def rate(self) -> str:
        """Seconds per step, or per item if items have no steps; "" before the first."""
        if self.loaded is None:
            return ""
        passed = self._latest - self.loaded
        if self._steps > len(self._ended):
            return f"{passed / self._steps:.2f} s/step"
        return f"{passed / len(self._ended):.2f} s/item" if self._ended else ""

    def left(self, now: float) -> float | None:
        """Seconds until all items are done; None while that is not known."""
        gained = self._made - sum(list(self._origins.values()))
        if self.loaded is None or gained <= 0 or self._latest <= self.loaded:
            return None
        whole = (self._distinct - self._made) * (self._latest - self.loaded) / gained
        return max(0.0, whole - (now - self._latest))

    @property
    def _made(self) -> float:
        return len(self._ended) + sum(list(self._parts.values()))  # a list: another thread may add to it


class Pauses:
    """Decides when a log without a live line gets its next line of progress."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest = clock()
        self._tenth: tuple[str, int] = ("", 0)

    def reset(self) -> None:
        """Start the pause again, after a line was written."""
        self._latest = self._clock()

    def is_due(self, item: str, part: float) -> bool:
        """Whether to write a line for a step: for each tenth of an item, and at least every minute."""
        tenth = (item, int(part * 10 + 1e-9))
        silence = self._clock() - self._latest
        due = silence >= LONGEST_SILENCE or (silence >= SHORTEST_SILENCE and tenth != self._tenth)
        if due:
            self._tenth = tenth
            self.reset()
        return due
