"""Tasks that come while their stage runs: a worker loads once, and takes them as they come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.protocol import MoreItems

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from runner.protocol import JobItem
    from runner.supervisor.stage_outcome import ItemRecorder
    from runner.work.demand import Task


class TaskFeed:
    """The queue of a stage's tasks that no worker has taken yet. Tasks may be put from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Task] = []
        self._closed = False
        self._wake: Callable[[], None] | None = None

    def put(self, tasks: Sequence[Task]) -> None:
        with self._changed:
            self._waiting += tasks
            self._tell()

    def close(self) -> None:
        """No more tasks will come."""
        with self._changed:
            self._closed = True
            self._tell()

    def take(self) -> list[Task]:
        """All tasks that are waiting."""
        with self._changed:
            taken, self._waiting = self._waiting, []
            return taken

    def withdraw(self, ids: Container[str]) -> list[Task]:
        """Take back those of these tasks, by their first items' ids, that nobody has taken."""
        with self._changed:
            back = [task for task in self._waiting if task.item.id in ids]
            self._waiting = [task for task in self._waiting if task.item.id not in ids]
            return back

    def wait(self) -> None:
        """Wait until tasks are there, or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)

    def woken(self, wake: Callable[[], None] | None) -> None:
        """Call ``wake`` at each change, in the thread that makes it; None ends that."""
        with self._changed:
            self._wake = wake

    @property
    def ended(self) -> bool:
        """Whether no task is waiting, and none will come."""
        with self._changed:
            return self._closed and not self._waiting

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            self._wake()


@dataclass
class WorkerFeed:
    """What one worker is given of a feed, beyond the items that its job began with."""

    tasks: TaskFeed
    make: Callable[[Sequence[Task]], tuple[JobItem, ...]]
    """Makes the items of tasks, and notes that they were taken."""
    recorder: ItemRecorder
    others_wait: bool
    """Whether tasks outside of the feed wait for this worker's end: then it ends when it is idle.

    They were in flight when an earlier worker died. The sender of tasks may be waiting for their end.
    """
    is_idle: bool = False
    """Whether the worker has said that it has nothing to do."""
    ended: bool = field(default=False, init=False)

    def more(self) -> MoreItems | None:
        """What to send to the worker now; None if there is nothing."""
        if self.ended:
            return None
        tasks = self.tasks.take()
        items = self.make(tasks)
        self.recorder.add(tasks, items)
        self.ended = self.tasks.ended or (self.others_wait and self.is_idle and not tasks)
        if not items and not self.ended:
            return None
        self.is_idle = False
        return MoreItems(items, last=self.ended)
