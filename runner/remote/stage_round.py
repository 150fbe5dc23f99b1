"""Runs one stage on all nodes: sends tasks, takes results, and reassigns the tasks of lost nodes."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from runner.errors import ExitCode, InterruptedRunError, ItemFailedError, StorageError
from runner.machine.active_time import active_seconds
from runner.remote.dispatch import Dispatch
from runner.remote.giving import give
from runner.remote.intake import Intake
from runner.remote.messages import (
    AgentEvent,
    Begin,
    End,
    Ended,
    MemoryUse,
    Refused,
    Result,
    StopStage,
    Withdraw,
    Withdrawn,
)
from runner.remote.node import Gone, State
from runner.supervisor.event_publisher import Outlook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.remote.members import Members
    from runner.remote.messages import Message
    from runner.remote.node import Node
    from runner.supervisor.executor import StageTasks
    from runner.work.demand import Task

STOP_SECONDS = 10.0  # for nodes to save states after an interruption
END_SECONDS = 60.0  # for nodes to end their workers
STRIKES = 3  # damaged results, or failed stages, before a node is left out
LOOK = 0.05  # seconds between looks at signals


class StageRound:
    """A stage from its first task to its last."""

    def __init__(self, members: Members, work: StageTasks, source: Mapping[str, Any] | None) -> None:
        """``source`` is the record of the model that results are to have."""
        self._members = members
        self._source = dict(source) if source is not None else None
        self._work = work
        self._stage = work.stage
        self._intake = Intake(work, members.run.publisher)
        self._dispatch = Dispatch(work.tasks)
        self._bad: Counter[str] = Counter()
        """Damaged results, by item."""

    def run(self) -> None:
        """Run the stage.

        Raises:
            InterruptedRunError: the user asked to stop.
            ItemFailedError: an item failed, and the run is to fail fast.
            RunnerError: no node is left that could make it, or results cannot be written.

        """
        members, tasks = self._members, self._work.tasks
        offer = members.offer(self._stage)
        started = active_seconds()
        outlook = Outlook(self._stage, offer.placement, dict(offer.predicted), offer.device)
        members.run.publisher.stage_started(outlook, tasks)
        try:
            with members.run.interrupts.watched():
                self._serve()
        finally:
            result = self._intake.result(active_seconds() - started, offer.predicted)
            members.run.publisher.stage_finished(result)

    def _serve(self) -> None:
        interrupts = self._members.run.interrupts
        while self._dispatch.open:
            if interrupts.count:
                self._stop_all(STOP_SECONDS, until=1)
                raise InterruptedRunError(f"stopped in stage '{self._stage.name}'")
            if self._intake.failed_first and self._members.run.fail_fast:
                self._stop_all(STOP_SECONDS)
                failed, stage = self._intake.failed_first, self._stage.name
                raise ItemFailedError(f"stopped: item '{failed}' failed in stage '{stage}' (--fail-fast)")
            self._members.greet()
            self._give()
            self._members.hear(LOOK, self.take)
            self._members.check_left()
        self._end_all()
        if interrupts.count:
            raise InterruptedRunError(f"stopped in stage '{self._stage.name}'")

    def take(self, node: Node, message: Message | Gone | StorageError) -> None:
        """Take what a node says about the stage.

        Raises:
            StorageError: what it sent cannot be written.

        """
        match message:
            case StorageError():
                raise message
            case Gone():
                self._lose(node, message)
            case Result():
                self._take_result(node, message)
            case AgentEvent():
                self._intake.publish(node, message)
            case MemoryUse():
                node.ram = message.ram
                held = max(one.ram for one in self._members.ready)
                self._members.run.publisher.memory(self._stage.name, held)
            case Withdrawn():
                node.asked = False
                tasks = [node.take_back(item) for item in message.items]
                self._dispatch.put_back([task for task in reversed(tasks) if task])
                self._forget(node, message.items)
            case Ended():
                self._take_end(node, message)
            case Refused():
                self._leave_out(node, message.code, message.error)
            case _:
                self._lose(node, Gone(f"it sent '{message.kind}' in a stage", hostile=True))

    # giving

    def _give(self) -> None:
        nodes = self._members.ready
        for node in sorted(nodes, key=lambda one: len(one.given)):
            self._give_to(node, self._dispatch.next_for(node, nodes, self._stage.index))
        idle = [node for node in self._members.ready if not node.given and not node.asked]
        if not idle:
            return
        if found := self._dispatch.to_withdraw(nodes, self._stage.index):
            node, items = found
            node.asked = True
            node.outbox.put(Withdraw(items))
            return
        for node in idle:
            if task := self._dispatch.straggler_for(node, nodes, self._stage.index):
                self._give_to(node, [task])

    def _give_to(self, node: Node, tasks: list[Task]) -> None:
        if not tasks:
            return
        if not node.in_stage:
            node.in_stage = True
            node.outbox.put(Begin(self._stage.name, self._source, node.shared))
        now = time.monotonic()
        for task in tasks:
            node.given[task.item.id], node.since[task.item.id] = task, now
        if not node.shared:
            self._intake.expect(node, tasks)
        for task, error in give(node, self._work, tasks):
            node.take_back(task.item.id)
            self._end(task, node, error=error)

    # taking

    def _take_result(self, node: Node, result: Result) -> None:
        task = node.take_back(result.item)
        if task is None or task.keyed.key != result.key:
            self._dispatch.put_back([task] if task else [])
            self._lose(node, Gone("it sent the result of an item that it was not given", hostile=True))
            return
        node.pace = result.seconds if not node.pace else 0.8 * node.pace + 0.2 * result.seconds
        files = node.expected.pop(result.item, {})
        if result.item not in self._dispatch.open:  # another node was faster
            node.staging.remove(files.values())
            return
        if result.done:
            if problem := self._intake.place(node, task, list(files.values())):
                self._take_damaged(node, task, problem)
                return
            node.held |= {path.name for path in files.values()}
        error = None if result.done else result.error or "it failed"
        self._end(task, node, error, result)

    def _take_damaged(self, node: Node, task: Task, problem: str) -> None:
        """Requeue a task whose result is damaged, for other nodes if there are any, or fail it at the third.

        A node is left out at its third.
        """
        self._bad[task.item.id] += 1
        node.strikes += 1
        if node.strikes >= STRIKES:
            self._leave_out(node, ExitCode.STAGE, f"its results are damaged: {problem}")
        if self._bad[task.item.id] >= STRIKES:
            self._end(task, node, f"what the nodes sent is damaged: {problem}")
        else:
            self._dispatch.put_back_damaged(task, node)

    def _end(self, task: Task, node: Node, error: str | None, result: Result | None = None) -> None:
        """A task has ended; only its first end counts."""
        if self._dispatch.close(task.item.id) is not None:
            self._intake.end(task, node, error, result)

    # nodes that end

    def _take_end(self, node: Node, ended: Ended) -> None:
        node.in_stage = False
        self._intake.take_end(node, ended, self._dispatch.open)
        left = self._clear(node)
        if ended.code in (ExitCode.DONE, ExitCode.INTERRUPTED):
            self._dispatch.put_back(reversed(left))
            return
        node.strikes += 1
        if ended.code in (ExitCode.STORAGE, ExitCode.MODEL):  # of the node, whatever it makes
            self._dispatch.put_back(reversed(left))
        else:
            self._suspect(node, left)
        if ended.code != ExitCode.STAGE or node.strikes >= STRIKES:
            self._leave_out(node, ended.code, ended.error)

    def _lose(self, node: Node, gone: Gone) -> None:
        """Reassign the tasks of a node that is gone or violated the protocol."""
        if node.state is State.GONE:
            return
        was_refused = node.state is State.REFUSED
        left = self._clear(node)
        self._members.lose(node, gone, self._stage.name, [item for task in left for item in task.items])
        if not was_refused:
            self._suspect(node, left)

    def _suspect(self, node: Node, left: list[Task]) -> None:
        """Requeue a lost node's tasks as suspects: any may be the cause, as results can be lost too."""
        for task in left:
            if self._dispatch.lost_with(task, node):
                what = node.reason or "it ended"
                self._end(task, node, f"given up after a second node failed while it made it: {what}")
        self._dispatch.put_back(reversed(left))

    def _clear(self, node: Node) -> list[Task]:
        """Take all that a node was given; the tasks are in the order that it had them."""
        left = list(node.given.values())
        self._forget(node, list(node.given))
        node.given.clear()
        node.since.clear()
        node.in_stage = node.alone = node.asked = False
        return left

    def _forget(self, node: Node, items: list[str]) -> None:
        for item in items:
            node.staging.remove(node.expected.pop(item, {}).values())

    def _leave_out(self, node: Node, code: int, reason: str) -> None:
        self._dispatch.put_back(reversed(self._clear(node)))
        self._members.refuse(node, code, reason)

    def _stop_all(self, seconds: float, until: int = 0) -> None:
        """Have all nodes end the stage; a further interruption ends the wait for them."""
        for node in self._members.ready:
            if node.in_stage:
                node.outbox.put(StopStage())
        self._wait_for_ends(seconds, until)

    def _end_all(self) -> None:
        """Have all nodes end the stage; those that still repeat a finished task stop at once."""
        for node in self._members.ready:
            if node.in_stage:
                node.outbox.put(StopStage() if node.given else End())
        for node in self._wait_for_ends(END_SECONDS, until=0):
            self._lose(node, Gone("it did not end its stage"))

    def _wait_for_ends(self, seconds: float, until: int) -> list[Node]:
        """Wait for nodes to end the stage; returns those that have not."""
        deadline = time.monotonic() + seconds
        interrupts = self._members.run.interrupts
        while left := [node for node in self._members.ready if node.in_stage]:
            if time.monotonic() > deadline or interrupts.count > until:
                return left
            self._members.hear(LOOK, self.take)
        return []
