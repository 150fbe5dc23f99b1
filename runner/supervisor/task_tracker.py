"""Applies the ends of tasks: removes files, links outputs, and fails the tasks that depend on failed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.files.storage import storage_errors
from runner.supervisor.handoff_refcounts import HandoffRefCounts
from runner.work.demand import make_links

if TYPE_CHECKING:
    from runner.pipeline.stage import PipelineStage
    from runner.work.demand import Demand, Task
    from runner.work.work import StageKey, Work


class TaskTracker:
    """Tracks which tasks are done and which failed; removes files that are not needed any more."""

    def __init__(self, work: Work, found: Demand) -> None:
        """``found`` is all that the run could make."""
        self.failed: set[StageKey] = set()
        self._work = work
        self._found = found
        self._refcounts: HandoffRefCounts | None = None
        if work.pipeline.manifest.table.run.keep_handoffs == "needed":
            self._refcounts = HandoffRefCounts(work, found.tasks)

    def tidy(self) -> None:
        """Remove damaged hand-offs and what earlier runs left behind; link outputs of renamed items.

        Raises:
            StorageError: a file cannot be written or removed.

        """
        for path in self._found.damaged:
            with storage_errors(path):
                path.unlink(missing_ok=True)
        make_links(self._found.renamed)
        self._remove_states()
        if self._refcounts is not None:
            self._refcounts.remove_unneeded()

    def can_run(self, stage: PipelineStage, task: Task) -> bool:
        """Whether all that the task depends on was made; if not, the task has failed too."""
        if self._work.sources(task.item.id, stage) & self.failed:
            self.failed.add((stage.name, task.keyed.key))
            return False
        return True

    def settle(self, stage: PipelineStage, task: Task, done: bool) -> None:
        """Note that a task is done or failed; link the outputs of items that share a finished task.

        Raises:
            StorageError: a file cannot be written or removed, or the run directory is gone.

        """
        self._work.directory.check_held()
        if not done:
            self.failed.add((stage.name, task.keyed.key))
        elif stage.is_terminal:
            own = self._work.files(task.item.id, stage)
            for item in task.duplicate_items:
                theirs = self._work.files(item, stage)
                make_links([(own[name], theirs[name]) for name in own if own[name].exists()])
        if done and self._refcounts is not None:
            self._refcounts.done(stage, task)

    def _remove_states(self) -> None:
        """Remove saved states of items that are done: a supervisor that was killed may leave some."""
        for stage, tasks in zip(self._work.pipeline.stages, self._found.tasks, strict=True):
            states = list(self._work.directory.states(stage.name))
            if not states:
                continue
            done = self._work.stage_keys(stage) - {task.keyed.key for task in tasks}
            for state in states:
                if state.stem in done:
                    with storage_errors(state):
                        state.unlink(missing_ok=True)
