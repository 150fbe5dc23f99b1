"""One stage to its end: its placement, and after running out of memory the ones that hold less."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.api import StageResult
from runner.errors import OutOfMemoryError
from runner.plan.memory.choose import predicted
from runner.supervisor.jobs import make_job
from runner.supervisor.limits import Limits
from runner.supervisor.stage import Outcome, StageRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.plan.assemble import Assembly
    from runner.plan.demand import Task
    from runner.plan.keys import Keyed
    from runner.plan.memory.candidates import Candidate
    from runner.plan.memory.choose import StagePlan
    from runner.rundir import RunDirectory
    from runner.supervisor.announce import Announcer
    from runner.supervisor.launch import Launchers
    from runner.supervisor.signals import Interrupts


@dataclass
class Attempts:
    """The attempts at one stage; each goes on with the items that the ones before left."""

    assembly: Assembly
    memory: StagePlan
    keys: Mapping[str, tuple[Keyed, ...]]
    directory: RunDirectory
    announcer: Announcer
    launchers: Launchers
    interrupts: Interrupts
    settle: Callable[[Task, bool], None]
    """Told of each task that ended, and whether it is done."""
    outcome: Outcome = field(default_factory=Outcome)
    placed: Candidate = field(init=False)

    def run(self, tasks: Sequence[Task], cached: int) -> None:
        """Run the stage; ``cached`` items were found done.

        Raises:
            OutOfMemoryError: there is no placement left, or the manifest says ``on_oom = "fail"``.
            RunnerError: what else a stage ends with.

        """
        started = time.monotonic()
        self.placed = self.memory.chosen
        items = sum(len(task.items) for task in tasks)
        name = self.memory.stage.name
        self.announcer.stage_started(name, items, self.placed.placement, predicted(self.placed))
        try:
            self._run_down(list(tasks))
        finally:
            self.announcer.stage_finished(
                StageResult(
                    stage=name,
                    seconds=round(time.monotonic() - started, 3),
                    done=len(self.outcome.done),
                    cached=cached,
                    failed=len(self.outcome.failed),
                    predicted=predicted(self.placed),
                    measured={"vram": self.outcome.vram, "ram": self.outcome.ram},
                    streamed=self.outcome.streamed,
                )
            )

    def _run_down(self, tasks: list[Task]) -> None:
        """Run, going down the placements where memory runs out; ``placed`` is where it came to."""
        for lower in (*self._ladder(), None):
            try:
                self._attempt(tasks, self.placed)
            except OutOfMemoryError as error:
                next_ = lower.placement if lower is not None else None
                measured = {"vram": self.outcome.vram, "ram": self.outcome.ram}
                self.announcer.out_of_memory(
                    self.memory.stage.name,
                    self.placed.placement,
                    predicted(self.placed),
                    measured,
                    str(error),
                    next_,
                )
                if lower is None:
                    raise
                tasks = [task for task in tasks if not {task.item.id} & {*self.outcome.ended}]
                self.placed = lower
                self.outcome.vram, self.outcome.ram = None, 0
            else:
                break

    def _ladder(self) -> tuple[Candidate, ...]:
        """What to go on with after running out of memory.

        Where nothing holds less, a fresh process may: what the items before have left behind is not in it.
        """
        if self.assembly.pipeline.manifest.table.run.on_oom == "fail":
            return ()
        return self.memory.lower or (self.memory.chosen,)

    def _attempt(self, tasks: list[Task], placed: Candidate) -> None:
        stage, pipeline = self.memory.stage, self.assembly.pipeline
        model = self.assembly.model(stage)
        job = make_job(pipeline, stage, tasks, self.keys, model, self.memory, placed, self.directory)
        # what the machine lets a worker have is a limit too, but a soft one: others may need less today
        limits = Limits(timeout=stage.table.timeout, ram=stage.budget.ram)
        run = StageRun(job, tasks, self.announcer, self.interrupts, limits, self.settle, self.outcome)
        run.run(self.launchers.get(job.device, job.threads), self.directory.log(stage.name))
