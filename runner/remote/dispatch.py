"""Assigns a stage's tasks to nodes: a group in flight and a second ahead; idle nodes take over at the end."""

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
DEATHS = 2  # nodes lost while they held a task, after which it fails
STRAGGLES = 3.0  # multiple of the usual seconds after which an idle node repeats a task
SHORTEST = 5.0  # seconds: nothing that takes less is made twice


class Dispatch:
    """The tasks of one stage: those that no node holds, and all that have not ended."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.open: dict[str, Task] = {task.item.id: task for task in tasks}
        """Tasks that have not ended, by item: the first result of each counts."""
        self._waiting = deque(tasks)
        self._suspects: deque[Task] = deque()
        """Tasks that a node was lost with. They come last, each alone on its node."""
        self._losses: Counter[str] = Counter()
        self._damaged_by: dict[str, Node] = {}
        """The node that sent the last damaged result of an item."""
        self._lost_by: dict[str, str] = {}
        """The name of the node that was last lost with an item: an agent that is started anew has it too."""

    def close(self, item: str) -> Task | None:
        """Remove a task that has ended, and return it; None if it had ended before."""
        return self.open.pop(item, None)

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Requeue tasks that no node holds any more; those that a node was lost with become suspects."""
        for task in tasks:
            if task.item.id not in self.open:
                continue
            if self._losses[task.item.id]:
                self._suspects.append(task)
            else:
                self._waiting.appendleft(task)

    def put_back_damaged(self, task: Task, node: Node) -> None:
        """Requeue a task whose result from ``node`` is damaged: for other nodes, if there are any."""
        self._damaged_by[task.item.id] = node
        self.put_back([task])

    def lost_with(self, task: Task, node: Node) -> bool:
        """Count a node that was lost while it held this task; returns whether the task has thereby failed."""
        self._lost_by[task.item.id] = node.name
        self._losses[task.item.id] += 1
        return self._losses[task.item.id] >= DEATHS

    def next_for(self, node: Node, nodes: Collection[Node], stage: int) -> list[Task]:
        """The next tasks for ``node``, one of ``nodes``, by its speed and the tasks left; may be empty."""
        if node.alone or node.asked:
            return []
        if self._trimmed(self._waiting):
            lack = self._target(node, nodes, stage) - len(node.given)
            few = node.given and 2 * lack < self._target(node, nodes, stage)
            return [] if few else self._pop(self._waiting, lack, node, nodes, stage)
        if not node.given and self._trimmed(self._suspects):
            found = self._pop(self._suspects, 1, node, nodes, stage)
            node.alone = bool(found)
            return found
        return []

    def _target(self, node: Node, nodes: Collection[Node], stage: int) -> int:
        """The number of tasks that a node should have: no more than its part of what is left."""
        group = node.group(stage)
        ahead = ceil(min(MOST, AHEAD / node.pace)) if node.pace else group
        left = len(self._waiting) + sum(len(one.given) for one in nodes)
        return max(1, min(MOST, group + max(group, ahead), ceil(left / len(nodes))))

    def to_withdraw(self, nodes: Collection[Node], stage: int) -> tuple[Node, list[str]] | None:
        """The node with most queued tasks, and half of these, to take back for idle nodes; or None."""
        if self._waiting or any(node.asked for node in nodes):
            return None
        busiest = max(nodes, key=lambda node: len(node.given) - node.group(stage))
        spare = list(busiest.given)[busiest.group(stage) :]
        return (busiest, spare[len(spare) // 2 :]) if spare else None

    def straggler_for(self, node: Node, nodes: Collection[Node], stage: int) -> Task | None:
        """An overdue task of another node, which the idle ``node`` should repeat; None if there is none."""
        copies = Counter(item for one in nodes for item in one.given)
        for other in nodes:
            for task in self._overdue(other, node.pace or other.pace, stage):
                if copies[task.item.id] == 1:
                    return task
        return None

    def _overdue(self, node: Node, pace: float, stage: int) -> list[Task]:
        """The open tasks of a node that take far longer than usual; those of a group run together."""
        usual = max(SHORTEST, STRAGGLES * pace * node.group(stage))
        now = time.monotonic()
        late = [task for item, task in node.given.items() if now - node.since[item] > usual]
        return [task for task in late if task.item.id in self.open]

    def _pop(
        self, tasks: deque[Task], most: int, node: Node, nodes: Collection[Node], stage: int
    ) -> list[Task]:
        """Take up to ``most`` tasks for ``node``.

        Those that it damaged, or that its last agent was lost with, stay for others, if these are no slower
        than usual.
        """
        others = [one for one in nodes if one is not node and not self._overdue(one, one.pace, stage)]
        taken: list[Task] = []
        left: list[Task] = []
        while tasks and len(taken) < most:
            task = tasks.popleft()
            item = task.item.id
            is_its_own = self._damaged_by.get(item) is node or self._lost_by.get(item) == node.name
            is_for_others = bool(others) and is_its_own
            (left if is_for_others else taken).append(task)
        tasks.extendleft(reversed(left))
        return taken

    def _trimmed(self, tasks: deque[Task]) -> bool:
        """Whether there are tasks; those that have ended are dropped from the front."""
        while tasks and tasks[0].item.id not in self.open:
            tasks.popleft()
        return bool(tasks)
