"""A whole run: opens the run directory, its journal and its executor, then executes what is missing."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runner.events import Waiting
from runner.files.storage import write_atomically
from runner.machine import cgroup
from runner.manifest.record import as_run
from runner.rundir.journal import Events, Journal
from runner.supervisor.event_publisher import EventPublisher
from runner.supervisor.execution import Execution
from runner.supervisor.executor import OpenRun
from runner.supervisor.local import LocalExecutor
from runner.supervisor.publication import Publication
from runner.supervisor.signals import Interrupts
from runner.work.demand import forced_stages
from runner.work.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.errors import ExitCode
    from runner.events import Event
    from runner.pipeline.binding import Pipeline
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.executor import StageExecutor


@dataclass(frozen=True)
class RunOptions:
    """Options of a run besides its manifest."""

    fresh: str | None = None
    """The stage, or ``ALL_STAGES``, from which on everything is made again."""
    wait: bool = False
    """Wait while another run holds the run directory."""
    retry_failed: bool = False
    """Run only the items that failed the last time."""
    fail_fast: bool = False
    """Stop at the first item that fails."""


class RunListener(Protocol):
    """Receives a run's events, from when its directory is locked until it is closed."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


@dataclass
class Supervisor:
    """Runs a pipeline in a run directory and emits ``events``."""

    pipeline: Pipeline
    directory: RunDirectory
    events: Events
    options: RunOptions
    interrupts: Interrupts = field(default_factory=Interrupts)
    listeners: Sequence[Callable[[RunDirectory], RunListener]] = ()
    """Opened when the run directory is locked, beside the journal."""
    executor: Callable[[Pipeline], StageExecutor] = LocalExecutor
    """Makes the stages."""

    def run(self) -> ExitCode:
        """Make what is missing.

        Raises:
            RunnerError: the run cannot start, or an error stopped it: then ``run_finished`` has it too.

        """
        forced = forced_stages(self.pipeline, self.options.fresh)
        executor = self.executor(self.pipeline)
        publication = self._publication()
        with self.interrupts.caught(), ExitStack() as stack:
            lock = stack.enter_context(self.directory.locked(self._waiting if self.options.wait else None))
            stack.callback(self.directory.sweep)  # killed workers leave temporary files
            for open_listener in (_journal, *self.listeners):
                listener = open_listener(self.directory)
                stack.callback(listener.close)
                self.events.listeners.append(listener)
            self.directory.sweep()
            cgroup.sweep()
            text = as_run(self.pipeline.manifest, self.directory.path, self.pipeline.input_files)
            write_atomically(self.directory.manifest, text)
            publisher = EventPublisher(self.pipeline, self.directory, self.events)
            fail_fast = self.options.fail_fast
            run = OpenRun(self.pipeline, self.directory, publisher, self.interrupts, lock, fail_fast)
            executor.open(run, stack)
            work = Work(self.pipeline, {}, self.directory)
            retry = self.options.retry_failed
            return Execution(work, executor, forced, publisher, retry, publication).run()

    def _publication(self) -> Publication | None:
        table = self.pipeline.manifest.table
        if table.run.publish is None:
            return None
        return Publication(table.run.publish, table.name, handoffs=table.run.publish_handoffs)

    def _waiting(self, reason: str) -> None:
        self.events.emit(Waiting(reason=reason))


def _journal(directory: RunDirectory) -> RunListener:
    return Journal(directory.journal)
