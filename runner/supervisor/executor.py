"""The interface of what runs the stages: this machine (:mod:`runner.supervisor.local`), or others.

The run directory, its lock, the keys, the demand and the journal stay with the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.feed import TaskFeed
    from runner.supervisor.signals import Interrupts
    from runner.work.demand import Task
    from runner.work.keys import Keys
    from runner.work.work import Work


@dataclass(frozen=True)
class OpenRun:
    """A run whose directory is locked: what its executor reports to."""

    pipeline: Pipeline
    directory: RunDirectory
    publisher: EventPublisher
    interrupts: Interrupts
    lock: int | None
    """Descriptor of the directory's lock, for workers to inherit; None if somebody else holds it."""
    fail_fast: bool = False


@dataclass(frozen=True)
class StageTasks:
    """A stage with the tasks that it is to run; ``cached`` items are done already."""

    work: Work
    stage: PipelineStage
    tasks: Sequence[Task]
    cached: int
    settle: Callable[[Task, bool], None]
    """Called with each task that ended, and whether it is done, before that is published."""
    feed: TaskFeed | None = None
    """Further tasks, which come while the stage runs."""
    source: Mapping[str, Any] | None = None
    """The record of the model that results are to have; by default that of where it is on this machine."""


class StageExecutor(Protocol):
    """Makes a run's stages. Its constructor checks what can be checked before the directory is locked."""

    def open(self, run: OpenRun, stack: ExitStack) -> None:
        """Take what the run needs; ``stack`` frees it.

        Raises:
            RunnerError: something that it needs is not available.

        """

    def prepare(self) -> Keys:
        """Have the models where the stages will run, and compute the keys of all items.

        Raises:
            RunnerError: a model is missing, or does not fit.

        """

    def plan(self, stages: Sequence[PipelineStage]) -> None:
        """Plan the stages that have something to do, before the first one starts.

        Raises:
            RunnerError: one does not fit, or its model does not.

        """

    def output_bytes(self, stage: PipelineStage) -> int:
        """The bytes that one item of a planned stage leaves on the disk; 0 if that is not known."""

    def run_stage(self, work: StageTasks) -> None:
        """Run a planned stage to its end.

        Raises:
            RunnerError: it stopped early.

        """
