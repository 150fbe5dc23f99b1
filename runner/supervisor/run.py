"""A whole run: opens the run directory, its journal, locks and launchers, then executes what is missing."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runner.events import Waiting
from runner.files.storage import write_atomically
from runner.machine import cgroup
from runner.manifest.record import as_run
from runner.rundir.journal import Events, Journal
from runner.supervisor.device_locks import DeviceLocks
from runner.supervisor.event_publisher import EventPublisher
from runner.supervisor.execution import Execution
from runner.supervisor.launch import Launchers
from runner.supervisor.signals import Interrupts
from runner.work.checks import look
from runner.work.demand import forced_stages
from runner.work.models import resolve_models
from runner.work.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from runner.errors import ExitCode
    from runner.events import Event
    from runner.pipeline.binding import Pipeline
    from runner.rundir.directory import RunDirectory


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
    launchers: Callable[[Pipeline, RunDirectory, Sequence[int]], AbstractContextManager[Launchers]] = (
        Launchers
    )
    """Starts the workers."""

    def run(self) -> ExitCode:
        """Make what is missing.

        Raises:
            RunnerError: the run cannot start, or an error stopped it: then ``run_finished`` has it too.

        """
        devices = [stage.device for stage in self.pipeline.stages]
        forced = forced_stages(self.pipeline, self.options.fresh)
        resolved = resolve_models(self.pipeline)
        here = [stage for stage in self.pipeline.stages if not stage.components or resolved.model(stage)]
        findings = look(resolved, here)
        findings.problems.check()
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
            locks = DeviceLocks(devices, stack)
            inherit = (lock, *locks.descriptors)
            launchers = stack.enter_context(self.launchers(self.pipeline, self.directory, inherit))
            return Execution(
                work=Work(self.pipeline, {}, self.directory),
                resolved=resolved,
                findings=findings,
                forced=forced,
                publisher=publisher,
                launchers=launchers,
                locks=locks,
                interrupts=self.interrupts,
                retry_failed=self.options.retry_failed,
                fail_fast=self.options.fail_fast,
            ).run()

    def _waiting(self, reason: str) -> None:
        self.events.emit(Waiting(reason=reason))


def _journal(directory: RunDirectory) -> RunListener:
    return Journal(directory.journal)
