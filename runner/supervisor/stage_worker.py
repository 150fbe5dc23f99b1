"""Runs one worker of a stage: handles its events, ends it above its RAM limit, and finds out how it ended."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from runner import events as ev
from runner.errors import CannotForkError, InterruptedRunError, OutOfMemoryError, WorkerDiedError, error_of
from runner.machine.active_time import active_seconds
from runner.supervisor.processes.connection import WorkerConnection
from runner.supervisor.processes.control_group import limited
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.machine.cgroup import MemoryGroup
    from runner.protocol import Job
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.feed import WorkerFeed
    from runner.supervisor.processes.launch import Launchers
    from runner.supervisor.processes.spawn import Process
    from runner.supervisor.signals import Interrupts
    from runner.supervisor.stage_outcome import ItemRecorder

LOG_LINES = 12  # of a stage's log that are shown when it fails
SUSPENDED_SAMPLES = 20  # in a row that find the worker suspended, before the run reports it
HEARTBEAT_GRACE = 20.0  # seconds; a worker with a timeout sends an event every second


class StageWorker:
    """One worker of a stage, from start to exit."""

    def __init__(
        self,
        job: Job,
        recorder: ItemRecorder,
        publisher: EventPublisher,
        interrupts: Interrupts,
        *,
        fail_fast: bool,
        feed: WorkerFeed | None = None,
    ) -> None:
        """``feed`` has more items for an open job."""
        self.recorder = recorder
        self.in_flight: dict[str, float] = {}
        """Items being made, with the time when each started: several where weights are streamed."""
        self._job = job
        self._outcome = recorder.outcome
        self._publisher = publisher
        self._interrupts = interrupts
        self._fail_fast = fail_fast
        self._feed = feed
        self._failure: ev.Failed | None = None
        self._finished = False
        self._started = self._heard = 0.0

    def run(self, launchers: Launchers, log: Path) -> None:
        """Run the job to its end; the outcome and ``in_flight`` are right after an error too.

        Raises:
            WorkerDiedError: the worker crashed or hung, while it made the items of ``in_flight``.
            CannotForkError: the worker was forked, and cannot use the device.
            OutOfMemoryError: the worker held more RAM than its budget, or could not allocate more.
            InterruptedRunError: the user asked to stop.
            RunnerError: an error that the worker reports (storage, model, budget).

        """
        self._started = active_seconds()
        launcher = launchers.get(self._job.device, self._job.threads)
        process = launcher.start(log)  # may import libraries: a signal ends this at once
        with self._interrupts.watched(process.pid), limited(process.pid, self._job.ram) as group:
            try:
                self._supervise(process, log, group)
            except (WorkerDiedError, OutOfMemoryError):  # the items in flight are tried again
                self._outcome.add_lost(self.in_flight, active_seconds())
                raise

    def _supervise(self, process: Process, log: Path, group: MemoryGroup | None) -> None:
        connection = WorkerConnection(process, self._job)
        stops = 0
        self._heard = active_seconds()
        try:
            with self._fed(connection):
                for event in connection.events():
                    if event is not None:
                        self._take(event)
                    else:
                        self._check_sample(connection, process, log)
                        stops = self._stop_if_requested(connection, stops)
                    if self._feed is not None and (more := self._feed.more()):
                        connection.send(more)
        except BaseException:
            connection.kill()
            for _ in connection.events():  # until it has exited: the next worker needs its memory
                pass
            raise
        finally:
            self._outcome.ram = max(self._outcome.ram, connection.memory.peak)
        if group is not None and connection.exit_code == -signal.SIGKILL and group.oom_kills():
            raise self._over_budget(connection.memory.peak)
        if self._interrupts.count:
            raise InterruptedRunError(f"stopped in stage '{self._job.name}'")
        if not stops:
            self._check_exit(connection.exit_code, log)

    @contextmanager
    def _fed(self, connection: WorkerConnection) -> Iterator[None]:
        """Inside, tasks that come reach the worker at once."""
        if self._feed is not None:
            self._feed.tasks.woken(connection.wake)
        try:
            yield
        finally:
            if self._feed is not None:
                self._feed.tasks.woken(None)

    def _take(self, event: ev.Event) -> None:
        self._heard = active_seconds()
        match event:
            case ev.Ready():
                seconds = round(self._heard - self._started, 3)
                self._publisher.events.emit(ev.StageReady(stage=self._job.name, seconds=seconds))
            case ev.ItemStarted():
                self.in_flight[event.item] = self._heard
            case ev.Progress() | ev.StateDiscarded():
                self._publisher.events.emit(event)
            case ev.Resumed():
                # the worker's own time for the item includes what went into the saved state
                self._outcome.lost[event.item] = max(0.0, self._outcome.lost[event.item] - event.seconds)
                self._publisher.events.emit(event)
            case ev.Warned():
                for item in self.recorder.items_of(event.item):
                    self._publisher.warning(replace(event, item=item))
            case ev.Retrying():
                self.in_flight.pop(event.item, None)
                self._publisher.events.emit(event)
            case ev.ItemFinished():
                self.in_flight.pop(event.item, None)
                self.recorder.end(event.item, event.seconds, event.error, event.traceback, event.attempts)
            case ev.Wanting():
                if self._feed is not None:
                    self._feed.is_idle = True
            case ev.Stuck():
                self._end_stuck(event)
            case ev.Failed():
                self._failure = event
                self._outcome.add_peaks(event)
            case ev.Finished():
                self._finished = True
                self._outcome.streamed = event.streamed
                self._outcome.add_peaks(event)

    def _end_stuck(self, event: ev.Stuck) -> None:
        self.in_flight.clear()  # the other items are not to blame
        message = f"took longer than its timeout of {self._job.timeout:g} s"
        self.recorder.end(event.item, event.seconds, f"it {message}", traceback=event.traceback)
        raise WorkerDiedError(f"stage '{self._job.name}': item '{event.item}' {message}")

    def _check_sample(self, connection: WorkerConnection, process: Process, log: Path) -> None:
        """Check the sampled memory against the limit, the heartbeat, and for suspension; at each tick."""
        held = connection.memory.now
        self._publisher.memory(self._job.name, held)
        self._check_heartbeat(log)
        if connection.suspended == SUSPENDED_SAMPLES:
            self._publisher.waiting(
                f"the worker of stage '{self._job.name}' (process {process.pid}) is suspended; "
                f"`kill -CONT {process.pid}` resumes it"
            )
        if self._job.ram is not None and held > self._job.ram:
            raise self._over_budget(held)

    def _check_heartbeat(self, log: Path) -> None:
        """Fail when the heartbeat is overdue: timeout + 20 s. Without a timeout, workers send none."""
        limit = self._job.timeout
        if limit is not None and self.in_flight and active_seconds() - self._heard > limit + HEARTBEAT_GRACE:
            raise WorkerDiedError(f"stage '{self._job.name}': its worker hung{self._during()}\n{_tail(log)}")

    def _stop_if_requested(self, connection: WorkerConnection, stops: int) -> int:
        """Ask the worker to stop at the first request, kill it at the second; returns the requests so far."""
        requests = self._interrupts.count or int(self._fail_fast and bool(self._outcome.failed))
        if requests > stops:
            # without an item in flight there is no state to save
            connection.ask_to_stop() if requests == 1 and self.in_flight else connection.kill()
        return max(requests, stops)

    def _check_exit(self, code: int | None, log: Path) -> None:
        if self._failure is not None:
            message = f"stage '{self._job.name}': {self._failure.error}"
            if self._failure.out_of_memory:
                raise OutOfMemoryError(message)
            if self._failure.cannot_fork:
                raise CannotForkError(message)
            if self._failure.device_lost:
                raise WorkerDiedError(f"{message}\n{_tail(log)}")
            raise error_of(self._failure.code, f"{message}\n{_tail(log)}")
        if not self._finished:
            how = f"was ended by signal {-code}" if code and code < 0 else f"exited with code {code}"
            raise WorkerDiedError(f"stage '{self._job.name}': its worker {how}{self._during()}\n{_tail(log)}")

    def _over_budget(self, held: int) -> OutOfMemoryError:
        loading = ", ".join(self._job.placements) or "its code"
        during = f"making {self._items()}" if self.in_flight else f"loading {loading}"
        return OutOfMemoryError(
            f"stage '{self._job.name}' went over its RAM budget while {during}: it held "
            f"{format_size(held)} of {format_size(self._job.ram or 0)} and was ended; "
            "give it a larger budget, or smaller items"
        )

    def _items(self) -> str:
        return ", ".join(f"'{item}'" for item in self.in_flight)

    def _during(self) -> str:
        return f" while it made {self._items()}" if self.in_flight else ""


def _tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    shown = "\n".join(f"  | {line}" for line in lines[-LOG_LINES:])
    return f"the end of {log}:\n{shown}" if shown else f"({log} is empty)"
