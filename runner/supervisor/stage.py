"""Running one stage: a worker, its events, its limits, its end."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.api import ItemResult
from runner.errors import InterruptedRunError, OutOfMemoryError, StageError, error_of
from runner.manifest.units import format_size
from runner.plan.memory.need import CUDA_CONTEXT
from runner.supervisor.conversation import Conversation
from runner.supervisor.limits import Limits, limited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.memory.cgroup import MemoryGroup
    from runner.plan.demand import Task
    from runner.protocol import Job
    from runner.supervisor.announce import Announcer
    from runner.supervisor.launch import Launcher
    from runner.supervisor.signals import Interrupts

LOG_LINES = 12  # of a stage's log that are shown when it fails


@dataclass
class Outcome:
    """What became of a stage's items: ids of those that are done, and of those that failed."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ram: int = 0
    vram: int | None = None
    streamed: dict[str, float] | None = None

    @property
    def ended(self) -> list[str]:
        return [*self.done, *self.failed]


class StageRun:
    """One stage's worker, from start to exit."""

    def __init__(
        self,
        job: Job,
        tasks: list[Task],
        announcer: Announcer,
        interrupts: Interrupts,
        limits: Limits,
        settle: Callable[[Task, bool], None],
        outcome: Outcome,
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
        self.outcome = outcome
        self._failure: dict[str, Any] | None = None
        self._finished = False
        self._current: dict[str, float] = {}
        """Items under way, and when they began: several where weights are streamed."""

    def run(self, launcher: Launcher, log: Path) -> None:
        """Run the stage to its end; ``outcome`` says how far it came, also after an error.

        Raises:
            StageError: the worker crashed, or an item took longer than its time.
            OutOfMemoryError: the worker held more RAM than its budget, or could not allocate more.
            InterruptedRunError: the user asked to stop.
            RunnerError: what the worker could not go on from (storage, model, budget).

        """
        process = launcher.start(log)  # imports: a signal ends this at once
        with self._interrupts.watched(), limited(process.pid, self._limits.ram) as group:
            self._watch(Conversation(process, self._job), log, group)

    def _watch(self, talk: Conversation, log: Path, group: MemoryGroup | None) -> None:
        asked = 0
        try:
            for event in talk.events():
                if event is not None:
                    self._take(event)
                    continue
                self._tell_memory(talk)
                self._check_time()
                self._check_memory(talk.memory.now)
                if self._interrupts.count > asked:
                    asked = self._interrupts.count
                    talk.ask_to_stop() if asked == 1 else talk.kill()
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
        self._check_end(talk.exit_code, log)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "item_started":
            self._current[event["item"]] = time.monotonic()
        elif kind == "progress":
            told = {name: event[name] for name in ("item", "step", "steps")}
            self._announcer.events.emit("progress", stage=self._job.name, **told)
        elif kind == "item_finished":
            self._current.pop(event["item"], None)
            self._finish(event)
        elif kind == "failed":
            self._failure = event
            self._note_vram(event)
        elif kind == "finished":
            self._finished = True
            self.outcome.streamed = event["streamed"]
            self._note_vram(event)

    def _note_vram(self, event: dict[str, Any]) -> None:
        if event.get("vram") is not None:
            # what torch does not count is on the device all the same
            self.outcome.vram = max(self.outcome.vram or 0, event["vram"] + CUDA_CONTEXT)

    def _finish(self, event: dict[str, Any]) -> None:
        task = self._tasks[event["item"]]
        error = event.get("error") or self._not_written(task)
        status = "failed" if error else "done"
        self._settle(task, not error)
        more = {name: event[name] for name in ("traceback", "attempts") if name in event}
        for item in task.items:
            (self.outcome.failed if error else self.outcome.done).append(item)
            result = ItemResult(
                stage=self._job.name,
                item=item,
                key=task.keyed.key,
                status=status,
                seconds=round(event["seconds"], 4),
                error=error,
            )
            self._announcer.item_finished(result, **more)

    def _not_written(self, task: Task) -> str | None:
        """Files are the truth, not the worker's word."""
        item = self._items[task.item.id]
        optional = {output.name for output in self._job.stage.outputs if output.optional}
        expected = [path for name, path in item.files.items() if name not in optional]
        expected += [item.handoff] if item.handoff else []
        missing = next((path for path in expected if not path.exists()), None)
        return f"{missing} is not there, though the stage ended well" if missing else None

    def _tell_memory(self, talk: Conversation) -> None:
        self._announcer.events.emit("memory", stage=self._job.name, ram=talk.memory.now)

    def _check_time(self) -> None:
        limit = self._limits.timeout
        for item, started in self._current.items():
            # items in lockstep take turns: each has its share of the time
            if limit is not None and time.monotonic() - started > limit * len(self._current):
                raise StageError(
                    f"stage '{self._job.name}': item '{item}' took longer than its timeout of {limit:g} s"
                )

    def _check_memory(self, held: int) -> None:
        limit = self._limits.ram
        if limit is not None and held > limit:
            raise self._over(held)

    def _over(self, held: int) -> OutOfMemoryError:
        during = f"making {self._making()}" if self._current else f"loading {self._loading()}"
        return OutOfMemoryError(
            f"stage '{self._job.name}' went over its RAM budget while {during}: it held "
            f"{format_size(held)} of {format_size(self._limits.ram or 0)} and was ended; "
            "give it more, or less to do"
        )

    def _making(self) -> str:
        return ", ".join(f"'{item}'" for item in self._current)

    def _loading(self) -> str:
        return ", ".join(self._job.placings) or "its code"

    def _check_end(self, code: int | None, log: Path) -> None:
        if self._failure is not None:
            told = f"stage '{self._job.name}': {self._failure['error']}"
            if self._failure.get("out_of_memory"):
                raise OutOfMemoryError(told)
            raise error_of(self._failure["code"], f"{told}\n{_tail(log)}")
        if not self._finished:
            how = f"was ended by signal {-code}" if code and code < 0 else f"exited with code {code}"
            where = f" while it made {self._making()}" if self._current else ""
            raise StageError(f"stage '{self._job.name}': its worker {how}{where}\n{_tail(log)}")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    shown = "\n".join(f"  | {line}" for line in lines[-LOG_LINES:])
    return f"the end of {log}:\n{shown}" if shown else f"({log} is empty)"
