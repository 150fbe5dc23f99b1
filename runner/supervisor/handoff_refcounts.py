"""``keep_handoffs = "needed"``: removes a hand-off as soon as every task that reads it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.files.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.work.demand import Task
    from runner.work.work import StageKey, Work


class HandoffRefCounts:
    """Which tasks have yet to read which hand-off."""

    def __init__(self, work: Work, tasks: Sequence[Sequence[Task]]) -> None:
        """``tasks`` are those that are to run, by stage."""
        self._work = work
        self._stages = {stage.name: stage for stage in work.pipeline.stages}
        self._readers: dict[StageKey, set[StageKey]] = {}
        for stage, theirs in zip(work.pipeline.stages, tasks, strict=True):
            for task in theirs:
                for source in work.sources(task.item.id, stage):
                    self._readers.setdefault(source, set()).add((stage.name, task.keyed.key))

    def remove_unneeded(self) -> None:
        """Remove hand-offs that no task reads: an interrupted run may have left some.

        Raises:
            StorageError: a hand-off cannot be removed.

        """
        for stage in self._work.pipeline.stages:
            for key in self._work.stage_keys(stage):
                if not stage.is_terminal and not self._readers.get((stage.name, key)):
                    self._remove(stage.name, key)

    def done(self, stage: PipelineStage, task: Task) -> None:
        """A task is done: remove the hand-offs that no other task reads.

        Raises:
            StorageError: a hand-off cannot be removed.

        """
        for source in self._work.sources(task.item.id, stage):
            readers = self._readers[source]
            readers.discard((stage.name, task.keyed.key))
            if not readers:
                self._remove(*source)

    def _remove(self, stage: str, key: str) -> None:
        handoff = self._work.directory.handoff(stage, key)
        for path in (handoff, *self._work.handoff_files(self._stages[stage], key)):
            with storage_errors(path):
                path.unlink(missing_ok=True)
