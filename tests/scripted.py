"""Workers that follow a script instead of a job, and one stage of a real pipeline run with them.

Each is a process that reads its job and answers as workers do, without torch: what a supervisor does about
workers that die, hang or say odd things takes milliseconds to see.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.cli.pipelines import open_pipeline
from runner.errors import RunnerError
from runner.events import encode
from runner.machine.interpreter import environment
from runner.plan.choose import plan_stage
from runner.rundir.journal import Events
from runner.supervisor.event_publisher import EventPublisher
from runner.supervisor.local import LocalExecutor
from runner.supervisor.processes.spawn import _Spawned
from runner.supervisor.run import RunOptions, Supervisor
from runner.supervisor.signals import Interrupts
from runner.supervisor.stage_runner import StageRunner
from runner.work.demand import demand
from runner.work.models import resolve_models
from runner.work.work import Work, run_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from project import Project

    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.processes.spawn import Process
    from runner.work.demand import Task
    from runner.work.models import ResolvedModels

ITEMS = "".join(f'[[item]]\nid = "{name}"\nprompt = "{name}"\n' for name in "abc")
"""Items for a manifest with a stage of the toy plugin."""

PRELUDE = """
import json, os, sys, time
from runner.files import handoff
from runner.files import provenance
from runner.protocol import messages, receive
from runner.files.storage import write_atomically

job = receive(sys.stdin.buffer)
ids = [item.id for item in job.items]
places = {item.id: item for item in job.items}
reported = messages(sys.stdin.buffer)
worker = int(sys.argv[1])
events = os.dup(1)
os.dup2(2, 1)


def say(event, **fields):
    line = json.dumps({"event": event, "stage": job.name, **fields})
    os.write(events, line.encode() + b"\\n")


def begin(*names):
    for name in names:
        say("item_started", item=name)


def make(name):
    place = places[name]
    for path in place.files.values():
        provenance.write_with_provenance(path, b"made", {"key": place.key, "lineage": {}})
    if place.handoff is not None:
        empty = (2).to_bytes(8, "little") + b"{}"
        write_atomically(place.handoff, handoff.seal(empty, {"key": place.key, "item": name}))


def done(*names):
    for name in names:
        begin(name)
        make(name)
        say("item_finished", item=name, status="done", seconds=0.5)


def fail(name):
    begin(name)
    say("item_finished", item=name, status="failed", seconds=0.5, error="no")


def want():
    # asks for more items of an open job: their ids, and whether no more come
    say("wanting")
    return given()


def given():
    more = next(reported)
    places.update((item.id, item) for item in more.items)
    return [item.id for item in more.items], more.last


def finish(**held):
    say("finished", **{"vram": None, "ram": 0, "streamed": None, **held})
    sys.exit(0)

"""


class Scripted:
    """Starts workers that follow a script; ``worker`` is in it the number of the worker, from 0."""

    usable = True
    most = 12
    """Workers that a test may need: one more is an error, where a stage would start them without an end."""

    def __init__(self, script: str) -> None:
        self._script = PRELUDE + script
        self.asked: list[tuple[str, int]] = []
        """Devices and threads that workers were asked for."""
        self.jobs = 0

    def get(self, device: str, threads: int) -> Scripted:
        self.asked.append((device, threads))
        return self

    def start(self, log: Path) -> Process:
        assert self.jobs < self.most, f"worker {self.jobs + 1} of a stage"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            popen = subprocess.Popen(
                [sys.executable, "-c", self._script, str(self.jobs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment(1),
                start_new_session=True,
            )
        self.jobs += 1
        return _Spawned(popen)

    def close(self) -> None: ...


@dataclass
class Stage:
    """The first stage of a manifest with all that a run has ready for it, and workers by a script."""

    resolved: ResolvedModels
    work: Work
    plan: StagePlan
    tasks: list[Task]
    events: list[dict[str, Any]] = field(default_factory=list)
    settled: list[tuple[str, bool]] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)
    settling: Callable[[Task], None] = lambda _task: None
    """Called with each task that has ended."""

    @property
    def directory(self) -> RunDirectory:
        return self.work.directory

    def attempts(self, script: str, **changes: Any) -> StageRunner:
        """What runs the stage; ``changes`` are those of its plan, or ``fail_fast``, ``feed``, ``launchers``."""
        fail_fast, feed = changes.pop("fail_fast", False), changes.pop("feed", None)
        launchers: Any = changes.pop("launchers", None) or Scripted(script)
        events = Events()
        events.listeners.append(lambda event: self.events.append(encode(event)))
        return StageRunner(
            work=self.work,
            model=self.resolved.model(self.plan.stage),
            plan=replace(self.plan, **changes),
            publisher=EventPublisher(self.work.pipeline, self.directory, events),
            launchers=launchers,
            interrupts=self.interrupts,
            settle=self._settle,
            fail_fast=fail_fast,
            feed=feed,
        )

    def _settle(self, task: Task, done: bool) -> None:
        self.settled.append((task.item.id, done))
        self.settling(task)

    def run(self, script: str, cached: int = 0, **changes: Any) -> StageRunner:
        """Run the stage to its end."""
        attempts = self.attempts(script, **changes)
        attempts.run(self.tasks, cached)
        return attempts

    def grouped(self, size: int) -> Any:
        """The chosen placement, for groups of items as where weights are streamed."""
        return replace(self.plan.chosen, group=size)

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [reported for reported in self.events if reported["event"] == event]

    def ended(self) -> list[tuple[str, str]]:
        """Items and what became of them, in the order that they ended in."""
        return [(e["item"], e["status"]) for e in self.of("item_finished")]


def first_stage(project: Project, manifest: str, sets: Sequence[str] = ()) -> Stage:
    """The stage as a run would come to it; plugins are imported in this process."""
    with project.as_environment():
        pipeline = open_pipeline(project.folder / manifest, sets)
        resolved = resolve_models(pipeline)
        work = Work(pipeline, resolved.keys() or {}, run_directory(pipeline, project.folder / "runs"))
        stage = pipeline.stages[0]
        plan = plan_stage(pipeline, stage, resolved.shapes(stage))
        return Stage(resolved, work, plan, demand(work).tasks[0])


@dataclass
class Ran:
    """A whole run with workers by a script."""

    code: int | None = None
    error: BaseException | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [reported for reported in self.events if reported["event"] == event]

    @property
    def made(self) -> list[tuple[str, str, str]]:
        """Stage, item and status of all that ended, in its order."""
        return [(e["stage"], e["item"], e["status"]) for e in self.of("item_finished")]


def run(
    project: Project,
    manifest: str,
    script: str = "done(*ids); finish()",
    sets: Sequence[str] = (),
    listen: Callable[[dict[str, Any]], None] = lambda _event: None,
    **options: Any,
) -> Ran:
    """Run a manifest in this process; a script knows its stage as ``job.name``."""
    ran, events = Ran(), Events()
    events.listeners += [lambda event: ran.events.append(encode(event)), lambda event: listen(encode(event))]

    @contextlib.contextmanager
    def launchers(*_: object) -> Iterator[Any]:
        yield Scripted(script)

    with project.as_environment():
        pipeline = open_pipeline(project.folder / manifest, sets)
        directory = run_directory(pipeline, project.folder / "runs")
        executor = partial(LocalExecutor, launchers=launchers)
        supervisor = Supervisor(pipeline, directory, events, RunOptions(**options), executor=executor)
        try:
            ran.code = supervisor.run()
        except (RunnerError, KeyboardInterrupt) as error:
            ran.code, ran.error = getattr(error, "exit_code", None), error
    return ran
