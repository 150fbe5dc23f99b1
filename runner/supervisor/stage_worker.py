"""Running one worker for a stage: its events, its limits, its end."""

from __future__ import annotations

import signal
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner import events as ev
from runner.api import ItemResult
from runner.errors import InterruptedRunError, OutOfMemoryError, WorkerDiedError, error_of
from runner.files.storage import storage_errors
from runner.machine.active_time import active_seconds
from runner.plan.requirements import CUDA_CONTEXT
from runner.supervisor.connection import WorkerConnection
from runner.supervisor.limits import WorkerLimits, limited
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.machine.cgroup import MemoryGroup
    from runner.protocol import Job
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.launch import Launchers
    from runner.supervisor.signals import Interrupts
    from runner.supervisor.spawn import Process
    from runner.work.demand import Task

LOG_LINES = 12  # of a stage's log that are shown when it fails
TOLD_AT = 20  # looks at a worker in a row that find it suspended, before that is told
SILENCE = 20.0  # seconds; a worker that watches its items' time says something every second


@dataclass
class StageOutcome:
    """What became of a stage's items: ids of those that are done, and of those that failed."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ram: int = 0
    vram: int | None = None
    streamed: dict[str, float] | None = None
    lost: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds that items spent in workers that died."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of items that were made at one go, by id."""

    @property
    def ended(self) -> set[str]:
        return {*self.done, *self.failed}

    @property
    def measured(self) -> dict[str, int | None]:
        return {"vram": self.vram, "ram": self.ram}


class StageWorker:
    """One worker of a stage, from start to exit."""

    def __init__(
        self,
        job: Job,
        tasks: list[Task],
        announcer: EventPublisher,
        interrupts: Interrupts,
        limits: WorkerLimits,
        settle: Callable[[Task, bool], None],
        outcome: StageOutcome,
        *,
        fail_fast: bool,
    ) -> None:
        """``settle`` is told of each task that ended, and whether it is done, before anybody else.

        What becomes of the items is added to ``outcome``.
        """
        self._job = job
        self._announcer = announcer
        self._interrupts = interrupts
        self._limits = limits
        self._settle = settle
        self._tasks = {task.item.id: task for task in tasks}
        self._items = {item.id: item for item in job.items}
        self._resumed = {item.id for item in job.items if item.state.exists()}
        self.outcome = outcome
        self._fail_fast = fail_fast
        self._failure: ev.Failed | None = None
        self._finished = False
        self._started = self._heard = 0.0
        self.in_flight: dict[str, float] = {}
        """Items under way with when they began, in their order: several where weights are streamed."""

    def run(self, launchers: Launchers, log: Path) -> None:
        """Run the stage to its end; ``outcome`` says how far it came, also after an error.

        Raises:
            WorkerDiedError: the worker crashed, or hung; ``in_flight`` are the items that it was at.
            OutOfMemoryError: the worker held more RAM than its budget, or could not allocate more.
            InterruptedRunError: the user asked to stop.
            RunnerError: what the worker could not go on from (storage, model, budget).

        """
        self._started = active_seconds()
        launcher = launchers.get(self._job.device, self._job.threads)
        process = launcher.start(log)  # imports: a signal ends this at once
        with self._interrupts.watched(process.pid), limited(process.pid, self._limits.ram) as group:
            try:
                self._watch(process, log, group)
            except (WorkerDiedError, OutOfMemoryError):  # what they were at is tried again
                self._note_lost()
                raise

    def _watch(self, process: Process, log: Path, group: MemoryGroup | None) -> None:
        talk = WorkerConnection(process, self._job)
        asked = 0
        self._heard = active_seconds()
        try:
            for event in talk.events():
                if event is not None:
                    self._take(event)
                    continue
                self._announcer.memory(self._job.name, talk.memory.now)
                self._check_life(log)
                if talk.suspended == TOLD_AT:
                    self._tell_suspended(process.pid)
                self._check_memory(talk.memory.now)
                wishes = self._interrupts.count or int(self._fail_fast and bool(self.outcome.failed))
                if wishes > asked:
                    asked = wishes
                    # a worker that is at no item has nothing to keep
                    talk.ask_to_stop() if asked == 1 and self.in_flight else talk.kill()
        except BaseException:
            talk.kill()
            for _ in talk.events():  # until it is gone: the next worker must find the memory free
                pass
            raise
        finally:
            self.outcome.ram = max(self.outcome.ram, talk.memory.peak)
        if group is not None and talk.exit_code == -signal.SIGKILL and group.oom_kills():
            raise self._over(talk.memory.peak)
        if self._interrupts.count:
            raise InterruptedRunError(f"stopped in stage '{self._job.name}'")
        if not asked:
            self._check_end(talk.exit_code, log)

    def _take(self, event: ev.Event) -> None:
        self._heard = active_seconds()
        match event:
            case ev.Ready():
                seconds = round(self._heard - self._started, 3)
                self._announcer.events.emit(ev.StageReady(stage=self._job.name, seconds=seconds))
            case ev.ItemStarted():
                self.in_flight[event.item] = self._heard
            case ev.Progress() | ev.StateDiscarded():
                self._announcer.events.emit(event)
            case ev.Resumed():
                # what went into the saved state is counted by the worker from here on
                self.outcome.lost[event.item] = max(0.0, self.outcome.lost[event.item] - event.seconds)
                self._announcer.events.emit(event)
            case ev.Warned():
                task = self._tasks.get(event.item or "")
                for item in task.items if task else [event.item]:
                    self._announcer.warning(replace(event, item=item))
            case ev.Retrying():
                self.in_flight.pop(event.item, None)
                self._announcer.events.emit(event)
            case ev.ItemFinished():
                self.in_flight.pop(event.item, None)
                self.end_item(event.item, event.seconds, event.error, event.traceback, event.attempts)
            case ev.Stuck():
                self._end_stuck(event.item, event.seconds, event.traceback)
            case ev.Failed():
                self._failure = event
                self._note_held(event.vram, event.ram)
            case ev.Finished():
                self._finished = True
                self.outcome.streamed = event.streamed
                self._note_held(event.vram, event.ram)

    def _end_stuck(self, item: str, seconds: float, traceback: str) -> None:
        self.in_flight.clear()  # the others are not to blame
        told = f"took longer than its timeout of {self._limits.timeout:g} s"
        self.end_item(item, seconds, f"it {told}, and came to no end", traceback=traceback)
        raise WorkerDiedError(f"stage '{self._job.name}': item '{item}' {told}")

    def _note_held(self, vram: int | None, ram: int | None) -> None:
        """What the worker says that it holds: what is sampled from outside may be a moment too old."""
        self.outcome.ram = max(self.outcome.ram, ram or 0)
        if vram is not None:
            # what torch does not count is on the device all the same
            self.outcome.vram = max(self.outcome.vram or 0, vram + CUDA_CONTEXT)

    def _note_lost(self) -> None:
        """Count what a worker that ended early had spent on the items under way, shared evenly."""
        now = active_seconds()
        for item, began in self.in_flight.items():
            self.outcome.lost[item] += (now - began) / len(self.in_flight)

    def end_item(
        self, id_: str, seconds: float, error: str | None, traceback: str | None = None, attempts: int = 1
    ) -> None:
        """Have a task and all that share it be done, or failed."""
        task = self._tasks[id_]
        error = error or self._not_written(task)
        if not error:
            state = self._items[id_].state
            with storage_errors(state):
                state.unlink(missing_ok=True)
            if id_ not in self._resumed:
                self.outcome.seconds[id_] = seconds
        self._settle(task, not error)
        for item in task.items:
            (self.outcome.failed if error else self.outcome.done).append(item)
            result = ItemResult(
                stage=self._job.name,
                item=item,
                key=task.keyed.key,
                status="failed" if error else "done",
                seconds=round(seconds + self.outcome.lost[id_], 4),
                error=error,
            )
            self._announcer.item_finished(result, traceback, attempts)

    def _not_written(self, task: Task) -> str | None:
        """Files are the truth, not the worker's word."""
        item = self._items[task.item.id]
        optional = {output.name for output in self._job.stage.outputs if output.optional}
        expected = [path for name, path in item.files.items() if name not in optional]
        expected += [item.handoff] if item.handoff else []
        missing = next((path for path in expected if not path.exists()), None)
        return f"{missing} is not there, though the stage ended well" if missing else None

    def _check_life(self, log: Path) -> None:
        """A worker that keeps an eye on its items' time, and says nothing for long, can no longer do so."""
        limit = self._limits.timeout
        if limit is not None and self.in_flight and active_seconds() - self._heard > limit + SILENCE:
            raise WorkerDiedError(f"stage '{self._job.name}': its worker hung{self._where()}\n{_tail(log)}")

    def _tell_suspended(self, pid: int) -> None:
        reason = (
            f"the worker of stage '{self._job.name}' (process {pid}) is suspended; "
            f"`kill -CONT {pid}` has it go on"
        )
        self._announcer.events.emit(ev.Waiting(reason=reason))

    def _check_memory(self, held: int) -> None:
        limit = self._limits.ram
        if limit is not None and held > limit:
            raise self._over(held)

    def _over(self, held: int) -> OutOfMemoryError:
        during = f"making {self._making()}" if self.in_flight else f"loading {self._loading()}"
        return OutOfMemoryError(
            f"stage '{self._job.name}' went over its RAM budget while {during}: it held "
            f"{format_size(held)} of {format_size(self._limits.ram or 0)} and was ended; "
            "give it more, or less to do"
        )

    def _making(self) -> str:
        return ", ".join(f"'{item}'" for item in self.in_flight)

    def _where(self) -> str:
        return f" while it made {self._making()}" if self.in_flight else ""

    def _loading(self) -> str:
        return ", ".join(self._job.placements) or "its code"

    def _check_end(self, code: int | None, log: Path) -> None:
        if self._failure is not None:
            told = f"stage '{self._job.name}': {self._failure.error}"
            if self._failure.out_of_memory:
                raise OutOfMemoryError(told)
            raise error_of(self._failure.code, f"{told}\n{_tail(log)}")
        if not self._finished:
            how = f"was ended by signal {-code}" if code and code < 0 else f"exited with code {code}"
            raise WorkerDiedError(f"stage '{self._job.name}': its worker {how}{self._where()}\n{_tail(log)}")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    shown = "\n".join(f"  | {line}" for line in lines[-LOG_LINES:])
    return f"the end of {log}:\n{shown}" if shown else f"({log} is empty)"
