"""Runs one stage to its end: a new worker after one died, a smaller placement after memory ran out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runner.api import StageResult
from runner.errors import CannotForkError, ItemFailedError, OutOfMemoryError, WorkerDiedError
from runner.machine.active_time import active_seconds
from runner.plan.duration import learn
from runner.supervisor.event_publisher import Outlook
from runner.supervisor.feed import WorkerFeed
from runner.supervisor.jobs import job_items, make_job
from runner.supervisor.stage_outcome import ItemRecorder, StageOutcome
from runner.supervisor.stage_worker import StageWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.files.hashes import Identities
    from runner.model.sources import ComposedModel
    from runner.plan.placement_option import PlacementOption
    from runner.plan.stage_plan import StagePlan
    from runner.protocol import JobItem
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.feed import TaskFeed
    from runner.supervisor.processes.launch import Launchers
    from runner.supervisor.signals import Interrupts
    from runner.work.demand import Task
    from runner.work.work import Work


PATIENCE = 4  # workers that die in a row without an item done, before the stage has failed


@dataclass
class StageRunner:
    """The workers of one stage, one after another; each goes on with the items that are left."""

    work: Work
    model: ComposedModel | None
    """What the stage loads, if it loads anything."""
    plan: StagePlan
    publisher: EventPublisher
    launchers: Launchers
    interrupts: Interrupts
    settle: Callable[[Task, bool], None]
    """Called with each task that ended, and whether it is done."""
    fail_fast: bool = False
    feed: TaskFeed | None = None
    """Tasks that come while the stage runs, beside those that it starts with."""
    source: Mapping[str, Any] | None = None
    """The record of the model that results are to have, if it is not the model's own."""
    unchanged: Callable[[], Identities] = dict
    """Returns the identities of the stage's files, and raises a RunnerError if their content has changed."""
    outcome: StageOutcome = field(default_factory=StageOutcome)
    placed: PlacementOption = field(init=False)
    """The placement in use."""
    _death: WorkerDiedError | None = None
    """Of the last worker that died."""
    _tasks: list[Task] = field(default_factory=list)
    """All tasks so far."""

    def run(self, tasks: Sequence[Task], cached: int) -> None:
        """Run the stage; ``cached`` items are done already.

        Raises:
            WorkerDiedError: workers die, and no item gets done.
            ItemFailedError: an item failed, and the run is to fail fast.
            OutOfMemoryError: there is no smaller placement, or the manifest says ``on_oom = "fail"``.
            RunnerError: another error that a worker ends with.

        """
        started = active_seconds()
        self.placed = self.plan.chosen
        self.publisher.stage_started(Outlook.of(self.plan), tasks)
        try:
            self._tasks = list(tasks)
            self._run_with_fallbacks()
            if self.fail_fast and self.outcome.failed:
                failed, stage = self.outcome.failed[0], self.plan.stage.name
                raise ItemFailedError(f"stopped: item '{failed}' failed in stage '{stage}' (--fail-fast)")
            if self._death is not None and not (self.outcome.done or cached or self.feed):
                raise self._death
        finally:
            seconds = active_seconds() - started
            self._learn(seconds, len(tasks))
            self.publisher.stage_finished(self._result(seconds, cached))

    def _run_with_fallbacks(self) -> None:
        """Run the tasks, with the next smaller placement after memory ran out."""
        fallbacks = iter(self._fallbacks())
        while True:
            try:
                self._run_tasks()
            except OutOfMemoryError as error:
                lower = next(fallbacks, None)
                # the same placement again helps only if earlier items left memory behind
                if lower is self.placed and not self.outcome.done:
                    lower = None
                next_ = lower.placement if lower is not None else None
                self.publisher.out_of_memory(
                    self.plan.stage.name,
                    self.placed.placement,
                    self.placed.predicted,
                    self.outcome.measured,
                    str(error),
                    next_,
                )
                if lower is None:
                    raise
                self.placed = lower
                self.outcome.vram, self.outcome.ram = None, 0
            else:
                return

    def _fallbacks(self) -> tuple[PlacementOption, ...]:
        """Placements to use after running out of memory, in this order.

        If there is no smaller one, the same in a new process, where no memory of earlier items is left.
        """
        if self.work.pipeline.manifest.table.run.on_oom == "fail":
            return ()
        return self.plan.lower or (self.plan.chosen,)

    def _run_tasks(self) -> None:
        """Run all tasks that have not ended, in a new worker whenever one dies.

        Tasks in flight at a death run when no others are there, one at a time; those in flight at a second
        death have failed.
        """
        stage = self.plan.stage.name
        deaths: Counter[str] = Counter()
        fruitless_deaths = 0  # workers in a row that died without an item done
        while left := self._left():
            unsuspected = [task for task in left if not deaths[task.item.id]]
            done = len(self.outcome.done)
            if unsuspected:
                others_wait = len(unsuspected) < len(left)
                worker = self._worker(unsuspected, self.placed.group, self.feed, others_wait=others_wait)
            else:
                worker = self._worker(left, 1)
            try:
                worker.run(self.launchers, self.work.directory.log(stage))
            except CannotForkError:
                if not self.launchers.forks(self.plan.limits.device):
                    raise
                self.launchers.spawn_only(self.plan.limits.device)
            except WorkerDiedError as error:
                self._death = error
                self.publisher.worker_died(stage, list(worker.in_flight), str(error))
                fruitless_deaths = 0 if len(self.outcome.done) > done else fruitless_deaths + 1
                if fruitless_deaths == PATIENCE:
                    raise
                deaths.update(list(worker.in_flight))
                for item in worker.in_flight:
                    if deaths[item] > 1:
                        worker.recorder.end(item, 0.0, f"given up after a second worker died: {error}")
            if self.fail_fast and self.outcome.failed:
                break

    def _left(self) -> list[Task]:
        """The tasks that have not ended; where there are none, those that come next."""
        while True:
            ended = self.outcome.ended
            left = [task for task in self._tasks if task.item.id not in ended]
            if left or self.feed is None or self.feed.ended:
                return left
            self.feed.wait()
            self._tasks += self.feed.take()

    def _worker(
        self, tasks: list[Task], group: int, feed: TaskFeed | None = None, *, others_wait: bool = False
    ) -> StageWorker:
        placed = replace(self.placed, group=group)
        job = make_job(self.work, self.plan, placed, tasks, self.model, self.source)
        job = replace(job, files=self.unchanged())
        recorder = ItemRecorder(job, tasks, self.publisher, self.settle, self.outcome)
        worker_feed = None
        if feed is not None and not feed.ended:
            job = replace(job, is_open=True)
            worker_feed = WorkerFeed(feed, self._items, recorder, others_wait)
        interrupts, fail_fast = self.interrupts, self.fail_fast
        return StageWorker(job, recorder, self.publisher, interrupts, fail_fast=fail_fast, feed=worker_feed)

    def _items(self, tasks: Sequence[Task]) -> tuple[JobItem, ...]:
        self._tasks += tasks
        return job_items(self.work, self.plan.stage, tasks, self.model, self.source)

    def _learn(self, seconds: float, tasks: int) -> None:
        """Record the stage's times for the estimates of later plans, which know the items from the start."""
        made = self.outcome.seconds
        if self.placed is not self.plan.chosen or not made or self.feed is not None:
            return
        waited = (self.outcome.streamed or {}).get("waited", 0.0)
        whole = len(made) == tasks and self._death is None
        learn(self.plan, made, seconds - sum(made.values()) - waited if whole else None)

    def _result(self, seconds: float, cached: int) -> StageResult:
        return StageResult(
            stage=self.plan.stage.name,
            seconds=round(seconds, 3),
            done=len(self.outcome.done),
            cached=cached,
            failed=len(self.outcome.failed),
            predicted=self.placed.predicted,
            measured=self.outcome.measured,
            streamed=self.outcome.streamed,
        )
