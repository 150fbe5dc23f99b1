"""The part of a run that holds its directory's lock: keys and demand, then stage by stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import ExitCode, InterruptedRunError, RunnerError
from runner.files.storage import check_room
from runner.rundir.history import failed_items
from runner.supervisor.executor import StageTasks
from runner.supervisor.task_tracker import TaskTracker
from runner.work.demand import Demand, demand

if TYPE_CHECKING:
    from runner.pipeline.stage import PipelineStage
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.executor import StageExecutor
    from runner.supervisor.publication import Publication
    from runner.work.demand import Task
    from runner.work.work import Work


RESERVE = 16 << 20  # bytes of disk that should be free for the journal, logs and saved states


@dataclass
class Execution:
    """A run in its locked directory, with all that it needs open."""

    work: Work
    """Without keys until the models are known."""
    executor: StageExecutor
    forced: list[int]
    """Stages, by index, whose results are made again."""
    publisher: EventPublisher
    retry_failed: bool
    publication: Publication | None = None
    """Where outputs are put as well."""

    def run(self) -> ExitCode:
        """Run the stages; ``run_finished`` is published at the end, after an error too.

        Raises:
            RunnerError: an error stopped the run.

        """
        self.publisher.run_started()
        error: RunnerError | None = None
        code = ExitCode.BUG
        try:
            self.work = replace(self.work, keys=self.executor.prepare())
            if self.publication is not None:
                self.publication.open(self.work, self.publisher)
            code = ExitCode.ITEMS_FAILED if self._run_stages() else ExitCode.DONE
            if self.publication is not None:
                self.publication.close()
        except KeyboardInterrupt:
            error, code = InterruptedRunError("stopped between stages"), ExitCode.INTERRUPTED
            raise error from None
        except RunnerError as stopped:
            error, code = stopped, stopped.exit_code
            raise
        finally:
            outputs = [path for path in self.work.outputs() if path.is_file()]
            self.publisher.run_finished(code, outputs, error)
        return code

    def _run_stages(self) -> bool:
        """Run every stage that has tasks; returns whether any task failed."""
        found = demand(self.work, self.forced)
        tracker = TaskTracker(self.work, found)
        tracker.tidy()
        if self.retry_failed:
            self._keep_failed(found)
        stages = [stage for stage in self.work.pipeline.stages if found.tasks[stage.index]]
        self.executor.plan(stages)
        for stage in stages:
            tasks = [task for task in found.tasks[stage.index] if tracker.can_run(stage, task)]
            if tasks:
                self._check_disk(stage, len(tasks))
                settle = partial(self._settle, tracker, stage)
                self.executor.run_stage(
                    StageTasks(self.work, stage, tasks, found.cached[stage.index], settle)
                )
        return bool(tracker.failed)

    def _settle(self, tracker: TaskTracker, stage: PipelineStage, task: Task, done: bool) -> None:
        tracker.settle(stage, task, done)
        if done and self.publication is not None:
            self.publication.add(self.work, stage, task)

    def _keep_failed(self, found: Demand) -> None:
        failed = failed_items(self.work.directory.journal)
        found.tasks = [[t for t in tasks if failed.intersection(t.items)] for tasks in found.tasks]

    def _check_disk(self, stage: PipelineStage, items: int) -> None:
        """Check that the disk has room for the stage's results.

        Raises:
            StorageError: it has not.

        """
        subject = f"stage '{stage.name}': its {items} items leave up to"
        needed = self.executor.output_bytes(stage) * items
        check_room(self.work.directory.path, needed, RESERVE, subject, "keep the run elsewhere (--runs-dir)")
