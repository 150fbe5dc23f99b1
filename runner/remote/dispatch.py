"""Which node gets which of a stage's tasks, and when: a group in flight, a little ahead, help at the end."""

from __future__ import annotations

import time
from collections import Counter, deque
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from runner.remote.node import Node
    from runner.work.demand import Task

AHEAD = 1.0  # seconds of work that a node has before it
MOST = 64  # tasks that a node has at a time
DEATHS = 2  # nodes that were lost with a task, before it has failed
STRAGGLES = 3.0  # times the usual that a task takes before an idle node makes it as well
SHORTEST = 5.0  # seconds: nothing that takes less is made twice


class Dispatch:
    """The tasks of one stage: those that nobody has, and those that have not ended."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.open: dict[str, Task] = {task.item.id: task for task in tasks}
        """Tasks that have not ended, by item: the first result of each counts."""
        self._waiting = deque(tasks)
        self._suspects: deque[Task] = deque()
        """Tasks that a node was lost with. They come last, each alone on its node."""
        self._losses: Counter[str] = Counter()

    def close(self, item: str) -> Task | None:
        """A task has ended; None if it had before."""
        return self.open.pop(item, None)

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Nobody has these tasks any more."""
        for task in tasks:
            if task.item.id not in self.open:
                continue
            if self._losses[task.item.id]:
                self._suspects.append(task)
            else:
                self._waiting.appendleft(task)

    def lost_with(self, task: Task) -> bool:
        """A node was lost while it made this task; returns whether that is once too often."""
        self._losses[task.item.id] += 1
        return self._losses[task.item.id] >= DEATHS

    def next_for(self, node: Node, nodes: Collection[Node], stage: int) -> list[Task]:
        """Tasks for a node of these, by how fast it is and how much is left; may be none."""
        if node.alone or node.asked:
            return []
        if self._trimmed(self._waiting):
            lack = self._target(node, nodes, stage) - len(node.given)
            few = node.given and 2 * lack < self._target(node, nodes, stage)
            return [] if few else self._pop(self._waiting, lack)
        if not node.given and self._trimmed(self._suspects):
            node.alone = True
            return self._pop(self._suspects, 1)
        return []

    def _target(self, node: Node, nodes: Collection[Node], stage: int) -> int:
        """The number of tasks that a node should have: no more than its part of what is left."""
        group = node.group(stage)
        ahead = ceil(AHEAD / node.pace) if node.pace else group
        left = len(self._waiting) + sum(len(one.given) for one in nodes)
        return max(1, min(MOST, group + max(group, ahead), ceil(left / len(nodes))))

    def to_withdraw(self, nodes: Collection[Node], stage: int) -> tuple[Node, list[str]] | None:
        """For idle nodes: a node that has more than it makes now, and tasks that it may give back."""
        if self._waiting or any(node.asked for node in nodes):
            return None
        busiest = max(nodes, key=lambda node: len(node.given) - node.group(stage))
        spare = list(busiest.given)[busiest.group(stage) :]
        return (busiest, spare[len(spare) // 2 :]) if spare else None

    def straggler_for(self, node: Node, nodes: Collection[Node]) -> Task | None:
        """For an idle node: a task that takes long elsewhere, for it to make as well."""
        now = time.monotonic()
        copies = Counter(item for one in nodes for item in one.given)
        for other in nodes:
            usual = max(SHORTEST, STRAGGLES * (node.pace or other.pace))
            for item, task in other.given.items():
                is_late = now - other.since[item] > usual
                if is_late and copies[item] == 1 and item in self.open and not self._losses[item]:
                    return task
        return None

    def _pop(self, tasks: deque[Task], most: int) -> list[Task]:
        return [tasks.popleft() for _ in range(min(most, len(tasks)))]

    def _trimmed(self, tasks: deque[Task]) -> bool:
        """Whether there are tasks; those that have ended are dropped from the front."""
        while tasks and tasks[0].item.id not in self.open:
            tasks.popleft()
        return bool(tasks)
