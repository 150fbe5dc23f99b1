"""A whole run: what is missing is made, stage by stage, one worker at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner import api
from runner.errors import ExitCode, InterruptedRunError, RunnerError
from runner.journal import Events, Journal
from runner.manifest.record import as_run
from runner.memory.devices import choose_device
from runner.plan.assemble import Assembly, assemble, fetch_missing, forced_stages
from runner.plan.demand import Demand, Task, demand, make_links, output_paths
from runner.storage import write_atomically
from runner.supervisor.jobs import make_job
from runner.supervisor.launch import CAN_FORK, ForkServer, Launcher, Spawner
from runner.supervisor.signals import Interrupts
from runner.supervisor.stage import Outcome, StageRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.plan.keys import Keyed
    from runner.plan.pipeline import Pipeline, PipelineStage
    from runner.rundir import RunDirectory


@dataclass
class Supervisor:
    """Runs a pipeline in a run directory, and tells ``events`` of it."""

    pipeline: Pipeline
    directory: RunDirectory
    events: Events
    fresh: str | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)

    def run(self) -> ExitCode:
        """Make what is missing.

        Raises:
            RunnerError: the run cannot begin. Once it has, errors are told through ``run_finished`` too.

        """
        devices = [
            choose_device(stage.budget.device, vram_budget=stage.budget.vram is not None)
            for stage in self.pipeline.stages
        ]
        forced = forced_stages(self.pipeline, self.fresh)
        assembly = assemble(self.pipeline)
        for stage in self.pipeline.stages:
            assembly.components(stage)  # a broken model is told before anything is written
        with self.interrupts.caught(), ExitStack() as stack:
            lock = stack.enter_context(self.directory.locked())
            journal = Journal(self.directory.journal)
            stack.callback(journal.close)
            self.events.listeners.append(journal)
            self.directory.sweep()
            write_atomically(self.directory.manifest, as_run(self.pipeline.manifest, self.directory.path))
            running = _Running(self, assembly, devices, forced, lock, stack)
            return running.run()


@dataclass
class _Running:
    """The part of a run that holds the lock."""

    supervisor: Supervisor
    assembly: Assembly
    devices: list[str]
    forced: list[int]
    lock: int
    stack: ExitStack
    launchers: dict[tuple[str, int], Launcher] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """Items that failed at some stage, by id: later stages pass them over."""

    def run(self) -> ExitCode:
        started = time.monotonic()
        plugins = self.supervisor.pipeline.plugins
        emit = self.supervisor.events.emit
        told = self._run_as_told()
        emit(
            "run_started",
            run=told.name,
            manifest=str(told.manifest),
            stages=list(told.stages),
            items=told.items,
        )
        plugins.notify("runner_run_started", run=told)
        self._tell_plugins_of_items(told)
        error: RunnerError | None = None
        code = ExitCode.BUG
        keys: Mapping[str, tuple[Keyed, ...]] = {}
        try:
            self.assembly = fetch_missing(self.assembly, self._tell_download)
            keys = self.assembly.keys() or {}
            self._run_stages(told, keys)
            code = ExitCode.ITEMS_FAILED if self.failed else ExitCode.DONE
        except KeyboardInterrupt:
            error, code = InterruptedRunError("stopped between stages"), ExitCode.INTERRUPTED
            raise error from None
        except RunnerError as stopped:
            error, code = stopped, stopped.exit_code
            raise
        finally:
            outputs = [path for path in self._outputs(keys) if path.exists()]
            seconds = round(time.monotonic() - started, 3)
            emit(
                "run_finished",
                exit_code=int(code),
                outputs=[str(path) for path in outputs],
                seconds=seconds,
                **({"error": str(error)} if error else {}),
            )
            summary = api.Summary(int(code), outputs, seconds)
            plugins.notify("runner_run_finished", run=told, summary=summary)
        return code

    def _run_as_told(self) -> api.Run:
        pipeline = self.supervisor.pipeline
        return api.Run(
            name=pipeline.manifest.table.name,
            directory=self.supervisor.directory.path,
            manifest=pipeline.manifest.path,
            stages=[stage.name for stage in pipeline.stages],
            items=len(pipeline.items),
        )

    def _tell_plugins_of_items(self, told: api.Run) -> None:
        plugins = self.supervisor.pipeline.plugins

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "item_finished":
                fields = ("stage", "item", "key", "status", "seconds", "error")
                item = api.ItemResult(**{name: event[name] for name in fields})
                plugins.notify("runner_item_finished", run=told, item=item)

        self.supervisor.events.listeners.append(listen)

    def _tell_download(self, source: str, done: int, total: int) -> None:
        self.supervisor.events.emit("progress", stage="fetch", item=source, step=done, steps=total)

    def _run_stages(self, told: api.Run, keys: Mapping[str, tuple[Keyed, ...]]) -> None:
        supervisor = self.supervisor
        found = demand(supervisor.pipeline, keys, supervisor.directory, self.forced)
        for path in found.damaged:
            path.unlink(missing_ok=True)
        make_links(found.renamed)
        for stage in supervisor.pipeline.stages:
            tasks = [t for t in found.tasks[stage.index] if t.item.id not in self.failed]
            if tasks:
                self._run_stage(told, stage, tasks, found, keys)

    def _run_stage(
        self,
        told: api.Run,
        stage: PipelineStage,
        tasks: list[Task],
        found: Demand,
        keys: Mapping[str, tuple[Keyed, ...]],
    ) -> None:
        supervisor, events = self.supervisor, self.supervisor.events
        plugins = supervisor.pipeline.plugins
        device = self.devices[stage.index]
        model = self.assembly.model(stage)
        job = make_job(supervisor.pipeline, stage, tasks, keys, model, device, supervisor.directory)
        started = time.monotonic()
        predicted: dict[str, int | None] = {"vram": None, "ram": None}
        events.emit(
            "stage_started",
            stage=stage.name,
            items=len(tasks),
            placement=job.placement,
            predicted=predicted,
        )
        plugins.notify("runner_stage_started", run=told, stage=stage.name)
        launcher = self._launcher(device, job.threads)
        run = StageRun(job, tasks, events, supervisor.interrupts, stage.table.timeout)
        outcome = run.run(launcher, supervisor.directory.log(stage.name))
        self._link_shared(stage, tasks, outcome)
        result = api.StageResult(
            stage=stage.name,
            seconds=round(time.monotonic() - started, 3),
            done=len(outcome.done),
            cached=found.cached[stage.index],
            failed=len(outcome.failed),
            predicted=predicted,
            measured={"vram": outcome.vram, "ram": outcome.ram},
        )
        events.emit("stage_finished", **vars(result))
        plugins.notify("runner_stage_finished", run=told, result=result)

    def _link_shared(self, stage: PipelineStage, tasks: list[Task], outcome: Outcome) -> None:
        """Give what was made for one item to all that have its key; their failures too."""
        directory = self.supervisor.directory
        for task in tasks:
            key = task.keyed.key
            if task.item.id in outcome.failed:
                self.failed |= {task.item.id, *task.sharing}
            elif stage.is_last:
                own = output_paths(stage, directory, task.item.id, key)
                for item in task.sharing:
                    theirs = output_paths(stage, directory, item, key)
                    made = [(own[name], theirs[name]) for name in own if own[name].exists()]
                    make_links(made)

    def _launcher(self, device: str, threads: int) -> Launcher:
        """One fork server for all CPU stages of a thread count; CUDA workers are spawned."""
        fork = CAN_FORK and device == "cpu"
        kind = ("fork" if fork else "spawn", threads)
        if kind not in self.launchers:
            stages = self.supervisor.pipeline.stages
            inherit = (self.lock,)
            if fork:
                specs = [stage.spec for stage in stages]
                # parameter models are imported here too: they are known to be light
                preload = [spec.params.partition(":")[0] for spec in specs if spec.params]
                preload += [module for spec in specs for module in spec.preload]
                log = self.supervisor.directory.log("forkserver")
                self.launchers[kind] = ForkServer(preload, threads, log, inherit)
            else:
                self.launchers[kind] = Spawner(threads, inherit)
            self.stack.callback(self.launchers[kind].close)
        return self.launchers[kind]

    def _outputs(self, keys: Mapping[str, tuple[Keyed, ...]]) -> list[Path]:
        """Files that the last stages leave, in the order of the items."""
        directory = self.supervisor.directory
        return [
            path
            for item, keyed in keys.items()
            for stage in self.supervisor.pipeline.stages
            if stage.is_last
            for path in output_paths(stage, directory, item, keyed[stage.index].key).values()
        ]
