"""Sends an agent's results, files and events to the run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner import events as ev
from runner.remote.messages import AgentEvent, MemoryUse, Piece, Result
from runner.remote.results import result_files
from runner.supervisor.event_publisher import EventPublisher

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import ItemResult, StageResult
    from runner.events import Event
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.remote.outbox import Outbox
    from runner.rundir.directory import RunDirectory
    from runner.rundir.journal import Events
    from runner.supervisor.event_publisher import Outlook
    from runner.work.demand import Task
    from runner.work.work import Work

FORWARDED: tuple[type[Event], ...] = (
    ev.Waiting,
    ev.MeasuringShapes,
    ev.FetchProgress,
    ev.PrepareProgress,
    ev.StageReady,
    ev.Progress,
    ev.Resumed,
    ev.StateDiscarded,
    ev.Warned,
    ev.Retrying,
    ev.WorkerDied,
    ev.OutOfMemory,
)
"""Events that an agent forwards; the end of an item is a ``Result`` message instead."""
TICK = 0.25  # seconds between reports of memory and steps


class EventForwarder:
    """A listener that forwards an agent's events to the run."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._steps: dict[str, ev.Progress] = {}
        """The latest step of each item since the last report."""
        self._reported = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, ev.Progress):
            self._steps[event.item] = event
        elif isinstance(event, ev.Memory):
            if time.monotonic() - self._reported >= TICK:
                self._reported = time.monotonic()
                self.flush()
                self._outbox.put(MemoryUse(event.ram))
        elif isinstance(event, FORWARDED):
            self._outbox.put(AgentEvent(ev.encode(event)))

    def flush(self) -> None:
        """Send the steps that were not sent yet."""
        steps, self._steps = self._steps, {}
        for step in steps.values():
            self._outbox.put(AgentEvent(ev.encode(step)))


class AgentPublisher(EventPublisher):
    """Sends results to the run, which calls hooks and writes the journal, instead of doing that here."""

    def __init__(self, pipeline: Pipeline, directory: RunDirectory, events: Events, outbox: Outbox) -> None:
        super().__init__(pipeline, directory, events)
        self._outbox = outbox
        self._work: Work | None = None
        self._tasks: dict[str, Task] = {}
        self._stage: PipelineStage | None = None
        self._shared = False
        self.result: StageResult | None = None

    def begin(self, work: Work, stage: PipelineStage, *, shared: bool) -> None:
        """A stage begins; ``shared``: its results are written where the run sees them."""
        self._work, self._stage, self._shared = work, stage, shared
        self._tasks, self.result = {}, None

    def take(self, task: Task) -> None:
        """The stage has this task."""
        self._tasks[task.item.id] = task

    @property
    def open_tasks(self) -> list[Task]:
        """The stage's tasks whose results were not sent yet."""
        return list(self._tasks.values())

    def give_back(self, items: list[str]) -> None:
        """The stage no longer has the tasks of these items."""
        for item in items:
            self._tasks.pop(item, None)

    def stage_started(self, outlook: Outlook, tasks: object) -> None:
        """Does nothing: the run itself publishes this event."""

    def stage_finished(self, result: StageResult) -> None:
        self.result = result

    def item_finished(
        self, item: ItemResult, traceback: str | None, attempts: int, node: str | None = None
    ) -> None:
        del node
        task = self._tasks.pop(item.item)
        done = item.status == "done"
        if done and not self._shared:
            self._send_files(task)
        self._outbox.put(Result(item.item, item.key, done, item.seconds, item.error, traceback, attempts))

    def _send_files(self, task: Task) -> None:
        assert self._work is not None  # noqa: S101 - a stage has begun
        assert self._stage is not None  # noqa: S101
        for (role, name), path in result_files(self._work, self._stage, task).items():
            whole = self._work.directory.path / path
            if whole.exists():
                self.send_file(role, task, name, whole)
                if self._stage.is_terminal:  # nobody reads it here
                    self._outbox.then(lambda done=whole: done.unlink(missing_ok=True))  # type: ignore[misc]

    def send_file(self, role: str, task: Task, name: str, path: Path) -> None:
        stage = self._stage.name if self._stage else ""
        self._outbox.put_file(Piece(role, stage, task.item.id, name, 0), path)
