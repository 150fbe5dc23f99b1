"""Takes results and events of nodes: checks and moves their files, ends items, publishes events."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from runner import events as ev
from runner.api import ItemResult, StageResult
from runner.files.storage import storage_errors, write_atomically
from runner.remote.reporting import FORWARDED
from runner.remote.results import is_state, problem_of, result_files, state_file
from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.remote.messages import AgentEvent, Ended, Result
    from runner.remote.node import Node
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.executor import StageTasks
    from runner.work.demand import Task


class Intake:
    """Takes what nodes send of one stage."""

    def __init__(self, work: StageTasks, publisher: EventPublisher) -> None:
        self._tasks = work
        self._work = work.work
        self._stage = work.stage
        self._publisher = publisher
        self._counts: Counter[str] = Counter()
        self._measured: dict[str, int | None] = {"vram": None, "vram_reserved": None, "ram": 0}
        self._streamed: dict[str, float] = {}
        self.failed_first = ""
        """The first item that failed."""

    def expect(self, node: Node, tasks: Iterable[Task]) -> None:
        """Allow a node to send the files of these tasks: results and saved states."""
        for task in tasks:
            key, path = state_file(self._work, self._stage, task)
            node.expected[task.item.id] = {key: path, **result_files(self._work, self._stage, task)}

    def place(self, node: Node, task: Task, files: Sequence[Path]) -> str | None:
        """Check a result's files and move them into the run directory; returns the problem, or None."""
        if node.shared:
            return problem_of(self._work, self._stage, task)
        staged = replace(self._work, directory=RunDirectory(node.staging.folder))
        there = [path for path in files if (node.staging.folder / path).exists()]
        if problem := problem_of(staged, self._stage, task):
            node.staging.remove(there)
            return problem
        node.staging.place(there, self._work.directory.path)
        return None

    def end(self, task: Task, node: Node, error: str | None, result: Result | None = None) -> None:
        """A task has ended, for all items that share it."""
        if not error:
            state = self._work.directory.state(self._stage.name, task.keyed.key)
            with storage_errors(state):
                state.unlink(missing_ok=True)
        self._tasks.settle(task, not error)
        for item in task.items:
            self._counts["failed" if error else "done"] += 1
            self._publisher.item_finished(
                ItemResult(
                    stage=self._stage.name,
                    item=item,
                    key=task.keyed.key,
                    status="failed" if error else "done",
                    seconds=result.seconds if result else 0.0,
                    error=error,
                ),
                result.traceback if result else None,
                result.attempts if result else 1,
                node.name,
            )
        if error:
            self.failed_first = self.failed_first or task.item.id

    def publish(self, node: Node, sent: AgentEvent) -> None:
        """Publish a node's event if it is in ``FORWARDED``, and about this stage and the node's items."""
        event = ev.decode(sent.event)
        if not isinstance(event, FORWARDED) or getattr(event, "stage", None) not in (None, self._stage.name):
            return
        item = getattr(event, "item", None)
        if item is not None and item not in node.given:
            return
        if any(part.name == "node" for part in fields(event)):
            changed: dict[str, Any] = {"node": node.name}
            event = replace(event, **changed)
        if isinstance(event, ev.Warned):
            for name in node.given[item].items if item is not None else [None]:
                self._publisher.warning(replace(event, item=name))
        elif isinstance(event, ev.Waiting):
            self._publisher.waiting(f"{node.name}: {event.reason}")
        else:
            self._publisher.events.emit(event)

    def take_end(self, node: Node, ended: Ended, open_items: Container[str]) -> None:
        """A node's part of the stage has ended: keep its peaks, its log, and the states of open items."""
        for name, held in ended.measured.items():
            if name in self._measured and held is not None:
                self._measured[name] = max(self._measured[name] or 0, held)
        for name, value in (ended.streamed or {}).items():
            self._streamed[name] = self._streamed.get(name, 0.0) + value
        if ended.log:
            log = self._work.directory.log(f"{self._stage.name}-{node.name}")
            write_atomically(log, ended.log.encode())
        for item, task in node.given.items():
            _, path = state_file(self._work, self._stage, task)
            if item not in open_items:  # a node that sees the folder may have written it there
                with contextlib.suppress(OSError):
                    (self._work.directory.path / path).unlink()
            elif item in node.expected and is_state(node.staging.folder / path, task.keyed.key):
                node.staging.place([path], self._work.directory.path)

    def result(self, seconds: float, predicted: Mapping[str, int | None]) -> StageResult:
        """The stage's result: counts of items, and the largest of the nodes' peaks."""
        return StageResult(
            stage=self._stage.name,
            seconds=round(seconds, 3),
            done=self._counts["done"],
            cached=self._tasks.cached,
            failed=self._counts["failed"],
            predicted=predicted,
            measured=self._measured,
            streamed=self._streamed or None,
        )
