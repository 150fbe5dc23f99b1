"""The outcome of a stage: its items' results, peaks of memory, times; kept across the stage's workers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.api import ItemResult
from runner.files.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runner.events import Failed, Finished
    from runner.protocol import Job, JobItem
    from runner.supervisor.event_publisher import EventPublisher
    from runner.work.demand import Task


@dataclass
class StageOutcome:
    """Ids of the items that are done and that failed, peaks of memory in bytes, times in seconds."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ram: int = 0
    vram: int | None = None
    """What the driver reports for the worker; what torch's allocator reserved, where it reports nothing."""
    vram_reserved: int | None = None
    """What torch's allocator reserved; None on the CPU."""
    streamed: dict[str, float] | None = None
    """The worker's statistics of streamed weights."""
    lost: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds that items spent in workers that died, by id."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of items that were made without interruption, by id."""

    @property
    def ended(self) -> set[str]:
        return {*self.done, *self.failed}

    @property
    def measured(self) -> dict[str, int | None]:
        return {"vram": self.vram, "vram_reserved": self.vram_reserved, "ram": self.ram}

    def add_peaks(self, event: Failed | Finished) -> None:
        """Note the peaks that a worker reports."""
        self.ram = max(self.ram, event.ram or 0)
        if event.vram_reserved is not None:
            self.vram_reserved = max(self.vram_reserved or 0, event.vram_reserved)
            self.vram = max(self.vram or 0, event.vram or event.vram_reserved)

    def add_lost(self, in_flight: Mapping[str, float], now: float) -> None:
        """Note the time that a worker spent on items before it died, shared evenly.

        ``in_flight`` has the time when each of them started.
        """
        for item, began in in_flight.items():
            self.lost[item] += (now - began) / len(in_flight)


class ItemRecorder:
    """Records the ends of a job's items in the outcome, and publishes them."""

    def __init__(
        self,
        job: Job,
        tasks: Sequence[Task],
        publisher: EventPublisher,
        settle: Callable[[Task, bool], None],
        outcome: StageOutcome,
    ) -> None:
        """``settle`` is called before anything is published, with the task and whether it is done."""
        self.outcome = outcome
        self._job = job
        self._publisher = publisher
        self._settle = settle
        self._tasks: dict[str, Task] = {}
        self._items: dict[str, JobItem] = {}
        self._resumed: set[str] = set()
        self.add(tasks, job.items)

    def add(self, tasks: Sequence[Task], items: Sequence[JobItem]) -> None:
        """Take note of tasks, and of their items in the job."""
        self._tasks |= {task.item.id: task for task in tasks}
        self._items |= {item.id: item for item in items}
        self._resumed |= {item.id for item in items if item.state.exists()}

    def items_of(self, id_: str | None) -> list[str | None]:
        """The id, with the ids of the items that share its task."""
        task = self._tasks.get(id_ or "")
        return [*task.items] if task else [id_]

    def end(
        self, id_: str, seconds: float, error: str | None, traceback: str | None = None, attempts: int = 1
    ) -> None:
        """Record the end of a task, given by its first item's id, for all items that share it."""
        task = self._tasks[id_]
        error = error or self._missing_file(id_)
        if not error:
            state = self._items[id_].state
            with storage_errors(state):
                state.unlink(missing_ok=True)
            if id_ not in self._resumed:
                self.outcome.seconds[id_] = seconds
        self._settle(task, not error)
        for item in task.items:
            (self.outcome.failed if error else self.outcome.done).append(item)
            result = ItemResult(
                stage=self._job.name,
                item=item,
                key=task.keyed.key,
                status="failed" if error else "done",
                seconds=round(seconds + self.outcome.lost[id_], 4),
                error=error,
            )
            self._publisher.item_finished(result, traceback, attempts)

    def _missing_file(self, id_: str) -> str | None:
        """The error of an item that the worker reports as done, if one of its files is missing."""
        item = self._items[id_]
        optional = {output.name for output in self._job.stage.outputs if output.optional}
        expected: list[Path] = [path for name, path in item.files.items() if name not in optional]
        expected += [item.handoff] if item.handoff else []
        missing = next((path for path in expected if not path.exists()), None)
        return f"{missing} is missing, though the stage reported success" if missing else None
