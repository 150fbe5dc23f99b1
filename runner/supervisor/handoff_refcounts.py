"""``keep_handoffs = "needed"``: a hand-off goes as soon as all that was to be made of it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.api import File
from runner.files.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.rundir.directory import RunDirectory
    from runner.work.demand import Task
    from runner.work.keys import Keyed


class HandoffRefCounts:
    """Which tasks still take from which hand-off; both are a stage's index and a key."""

    def __init__(
        self,
        pipeline: Pipeline,
        keys: Mapping[str, tuple[Keyed, ...]],
        directory: RunDirectory,
        tasks: Sequence[Sequence[Task]],
    ) -> None:
        """``tasks`` are those that are to run, by stage."""
        self._pipeline = pipeline
        self._keys = keys
        self._directory = directory
        self._takers: dict[tuple[int, str], set[tuple[int, str]]] = {}
        for stage, theirs in zip(pipeline.stages, tasks, strict=True):
            for task in theirs:
                for source in self._sources(stage, task.item.id):
                    self._takers.setdefault(source, set()).add((stage.index, task.keyed.key))

    def remove_unneeded(self) -> None:
        """Remove what an interrupted run has left though all that was made of it is there.

        Raises:
            StorageError: a hand-off cannot be removed.

        """
        for keyed in self._keys.values():
            for stage in self._pipeline.stages:
                source = (stage.index, keyed[stage.index].key)
                if not stage.is_terminal and not self._takers.get(source):
                    self._remove(*source)

    def done(self, stage: PipelineStage, task: Task) -> None:
        """A task is done: remove what nobody else takes from.

        Raises:
            StorageError: a hand-off cannot be removed.

        """
        for source in self._sources(stage, task.item.id):
            takers = self._takers[source]
            takers.discard((stage.index, task.keyed.key))
            if not takers:
                self._remove(*source)

    def _sources(self, stage: PipelineStage, item: str) -> set[tuple[int, str]]:
        keys = self._keys[item]
        return {(n, keys[n].key) for n in stage.sources}

    def _remove(self, index: int, key: str) -> None:
        stage = self._pipeline.stages[index]
        files = [output for output in stage.spec.outputs if isinstance(output, File)]
        paths = [self._directory.handoff(stage.name, key)]
        paths += [self._directory.handoff_file(stage.name, key, f.name, f.suffix) for f in files]
        for path in paths:
            with storage_errors(path):
                path.unlink(missing_ok=True)
