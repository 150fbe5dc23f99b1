"""One stage to its end: new workers where they die, placements that hold less where memory runs out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.api import StageResult
from runner.errors import ItemFailedError, OutOfMemoryError, WorkerDiedError
from runner.machine.active_time import active_seconds
from runner.plan.duration import learn
from runner.supervisor.jobs import make_job
from runner.supervisor.limits import WorkerLimits
from runner.supervisor.stage_worker import StageOutcome, StageWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.plan.candidates import PlacementOption
    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.launch import Launchers
    from runner.supervisor.signals import Interrupts
    from runner.work.demand import Task
    from runner.work.keys import Keyed
    from runner.work.models import ResolvedModels


PATIENCE = 4  # workers that die in a row with no item done, before the stage is given up


@dataclass
class StageRunner:
    """The attempts at one stage; each goes on with the items that the ones before left."""

    assembly: ResolvedModels
    memory: StagePlan
    keys: Mapping[str, tuple[Keyed, ...]]
    directory: RunDirectory
    announcer: EventPublisher
    launchers: Launchers
    interrupts: Interrupts
    settle: Callable[[Task, bool], None]
    """Told of each task that ended, and whether it is done."""
    fail_fast: bool = False
    outcome: StageOutcome = field(default_factory=StageOutcome)
    placed: PlacementOption = field(init=False)
    _death: WorkerDiedError | None = None
    """How the last worker that died did so."""

    def run(self, tasks: Sequence[Task], cached: int) -> None:
        """Run the stage; ``cached`` items were found done.

        Raises:
            WorkerDiedError: workers die, and no item gets done.
            ItemFailedError: an item failed, and that is to end the run.
            OutOfMemoryError: there is no placement left, or the manifest says ``on_oom = "fail"``.
            RunnerError: what else a stage ends with.

        """
        started = active_seconds()
        self.placed = self.memory.chosen
        items = sum(len(task.items) for task in tasks)
        name = self.memory.stage.name
        placed = self.placed
        self.announcer.stage_started(name, items, len(tasks), placed.placement, placed.predicted)
        try:
            self._run_down(list(tasks))
            if self.fail_fast and self.outcome.failed:
                failed = self.outcome.failed[0]
                raise ItemFailedError(f"stopped: item '{failed}' failed in stage '{name}' (--fail-fast)")
            if self._death is not None and not self.outcome.done and not cached:
                raise self._death
        finally:
            seconds = active_seconds() - started
            self._learn(seconds, len(tasks))
            self.announcer.stage_finished(
                StageResult(
                    stage=name,
                    seconds=round(seconds, 3),
                    done=len(self.outcome.done),
                    cached=cached,
                    failed=len(self.outcome.failed),
                    predicted=self.placed.predicted,
                    measured=self.outcome.measured,
                    streamed=self.outcome.streamed,
                )
            )

    def _learn(self, seconds: float, tasks: int) -> None:
        """Have later plans tell times from what this stage took."""
        made = self.outcome.seconds
        if self.placed is not self.memory.chosen or not made:
            return
        waited = (self.outcome.streamed or {}).get("waited", 0.0)
        whole = len(made) == tasks and self._death is None
        learn(self.memory, made, seconds - sum(made.values()) - waited if whole else None)

    def _run_down(self, tasks: list[Task]) -> None:
        """Run, going down the placements where memory runs out; ``placed`` is where it came to."""
        for lower in (*self._ladder(), None):
            try:
                self._run_through(tasks)
            except OutOfMemoryError as error:
                # the same once more is of use only where items before may have left something behind
                if lower is self.placed and not self.outcome.done:
                    lower = None  # noqa: PLW2901
                next_ = lower.placement if lower is not None else None
                self.announcer.out_of_memory(
                    self.memory.stage.name,
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
                break

    def _ladder(self) -> tuple[PlacementOption, ...]:
        """What to go on with after running out of memory.

        Where nothing holds less, a fresh process may: what the items before have left behind is not in it.
        """
        if self.assembly.pipeline.manifest.table.run.on_oom == "fail":
            return ()
        return self.memory.lower or (self.memory.chosen,)

    def _run_through(self, tasks: list[Task]) -> None:
        """Run all tasks that have not ended, in a new worker whenever one dies.

        Tasks that a worker died at come last, one by one; one that brings down a second worker has failed.
        """
        deaths: Counter[str] = Counter()
        barren = 0
        while left := self._left(tasks):
            calm = [task for task in left if not deaths[task.item.id]]
            done = len(self.outcome.done)
            run = self._worker(calm or left, self.placed.group if calm else 1)
            try:
                run.run(self.launchers, self.directory.log(self.memory.stage.name))
            except WorkerDiedError as error:
                self._death = error
                self.announcer.worker_died(self.memory.stage.name, list(run.in_flight), str(error))
                barren = 0 if len(self.outcome.done) > done else barren + 1
                if barren == PATIENCE:
                    raise
                deaths.update(list(run.in_flight))
                for item in run.in_flight:
                    if deaths[item] > 1:
                        run.end_item(item, 0.0, f"set aside, for a second worker died: {error}")
            if self.fail_fast and self.outcome.failed:
                break

    def _left(self, tasks: list[Task]) -> list[Task]:
        ended = self.outcome.ended
        return [task for task in tasks if task.item.id not in ended]

    def _worker(self, tasks: list[Task], group: int) -> StageWorker:
        stage, pipeline = self.memory.stage, self.assembly.pipeline
        model = self.assembly.model(stage)
        job = make_job(
            pipeline, stage, tasks, self.keys, model, self.memory, self.placed, group, self.directory
        )
        # what the machine lets a worker have is a limit too, but a soft one: others may need less today
        limits = WorkerLimits(timeout=stage.table.timeout, ram=stage.budget.ram)
        return StageWorker(
            job,
            tasks,
            self.announcer,
            self.interrupts,
            limits,
            self.settle,
            self.outcome,
            fail_fast=self.fail_fast,
        )
