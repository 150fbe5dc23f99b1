"""The history of one stage of a run, from its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import events as ev

if TYPE_CHECKING:
    from datetime import datetime

    from runner.events.json_values import Bytes


@dataclass(frozen=True)
class Failure:
    """An item that failed, and why."""

    stage: str
    item: str
    error: str
    traceback: str = ""
    attempts: int = 1

    @property
    def reason(self) -> str:
        """The first line of the error."""
        return self.error.partition("\n")[0]


class StageHistory:
    """A stage of a run. ``seconds`` is None while it runs."""

    def __init__(self, event: ev.StageStarted) -> None:
        self.name = event.stage
        self.items = event.items
        """Number of items to make, in ``distinct`` tasks: items with the same key share one."""
        self.distinct = event.items if event.distinct is None else event.distinct
        self.placement = event.placement
        self.predicted: Bytes = event.predicted
        self.budget: Bytes = event.budget
        self.dtype = event.dtype
        self.device = event.device
        self.is_terminal = event.last
        self.started: datetime | None = event.time
        self.measured: Bytes = {}
        self.memory: list[tuple[float, int]] = []
        """RAM over time: seconds since the stage started, and bytes."""
        self.streamed: dict[str, float] | None = None
        self.seconds: float | None = None
        self.cached = 0
        self.made: set[str] = set()
        self.failures: dict[str, Failure] = {}
        self.lowered: list[ev.OutOfMemory] = []
        """The events of placements that ran out of memory."""
        self._seconds: dict[str, float] = {}

    @property
    def done(self) -> int:
        return len(self.made)

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def seconds_an_item(self) -> float | None:
        """Mean seconds per task, without imports and loading."""
        return sum(self._seconds.values()) / len(self._seconds) if self._seconds else None

    def take(self, event: ev.Event) -> None:
        """Update the history with the next event of this stage."""
        match event:
            case ev.ItemFinished():
                self._end_item(event)
            case ev.OutOfMemory():
                self.lowered.append(event)
            case ev.StageFinished():
                self.predicted, self.measured = event.predicted, event.measured
                self.cached, self.seconds = event.cached, event.seconds
                self.memory, self.streamed = event.memory, event.streamed
                if self.lowered and self.lowered[-1].next is not None:
                    self.placement = self.lowered[-1].next

    def _end_item(self, event: ev.ItemFinished) -> None:
        self._seconds[event.key or event.item] = event.seconds
        if event.failed:
            self.failures[event.item] = Failure(
                self.name, event.item, event.error or "", event.traceback or "", event.attempts
            )
        else:
            self.made.add(event.item)
            self.failures.pop(event.item, None)
