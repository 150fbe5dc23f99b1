"""A whole run: what is missing is made, stage by stage, one worker at a time."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import ExitCode, InterruptedRunError, RunnerError
from runner.journal import Events, Journal
from runner.manifest.record import as_run
from runner.memory import cgroup
from runner.memory.devices import choose_device
from runner.plan.assemble import Assembly, assemble, fetch_missing, forced_stages
from runner.plan.demand import Task, demand, make_links, output_paths
from runner.plan.memory.choose import StagePlan, plan_stage
from runner.storage import write_atomically
from runner.supervisor.announce import Announcer
from runner.supervisor.attempts import Attempts
from runner.supervisor.launch import Launchers
from runner.supervisor.signals import Interrupts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.plan.keys import Keyed
    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage
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
        for stage in self.pipeline.stages:
            choose_device(stage.budget.device, vram_budget=stage.budget.vram is not None)
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
            cgroup.sweep()
            write_atomically(self.directory.manifest, as_run(self.pipeline.manifest, self.directory.path))
            announcer = Announcer(self.pipeline, self.directory, self.events)
            launchers = stack.enter_context(Launchers(self.pipeline, self.directory, inherit=(lock,)))
            run = _Running(self, assembly, forced, announcer, launchers)
            return run.run()


@dataclass
class _Running:
    """The part of a run that holds the lock."""

    supervisor: Supervisor
    assembly: Assembly
    forced: list[int]
    announcer: Announcer
    launchers: Launchers
    keys: Mapping[str, tuple[Keyed, ...]] = field(default_factory=dict)
    failed: set[tuple[int, str]] = field(default_factory=set)
    """Stages (by index) and keys that could not be made: what takes from them cannot be made either."""

    def run(self) -> ExitCode:
        supervisor = self.supervisor
        error: RunnerError | None = None
        code = ExitCode.BUG
        self.announcer.run_started()
        try:
            if None in self.assembly.models.values():  # nobody waits for a download to be refused
                self._plan(supervisor.pipeline.stages)
            self.assembly = fetch_missing(self.assembly, self.announcer.fetching)
            self.keys = self.assembly.keys() or {}
            self._run_stages()
            code = ExitCode.ITEMS_FAILED if self.failed else ExitCode.DONE
        except KeyboardInterrupt:
            error, code = InterruptedRunError("stopped between stages"), ExitCode.INTERRUPTED
            raise error from None
        except RunnerError as stopped:
            error, code = stopped, stopped.exit_code
            raise
        finally:
            self.announcer.run_finished(code, [p for p in self._outputs() if p.exists()], error)
        return code

    def _run_stages(self) -> None:
        supervisor = self.supervisor
        found = demand(supervisor.pipeline, self.keys, supervisor.directory, self.forced)
        for path in found.damaged:
            path.unlink(missing_ok=True)
        make_links(found.renamed)
        stages = [stage for stage in supervisor.pipeline.stages if found.tasks[stage.index]]
        plans = self._plan(stages)
        for stage, plan in zip(stages, plans, strict=True):
            tasks = [task for task in found.tasks[stage.index] if self._is_possible(stage, task)]
            if tasks:
                self._run_stage(plan, tasks, found.cached[stage.index])

    def _plan(self, stages: Sequence[PipelineStage]) -> list[StagePlan]:
        """Plan stages, and refuse them all if one does not fit: before the first starts, not hours later.

        Raises:
            BudgetError: one does not fit.

        """
        plans = [plan_stage(self.supervisor.pipeline, s, self.assembly.shapes(s)) for s in stages]
        for plan in plans:
            plan.check()
        return plans

    def _is_possible(self, stage: PipelineStage, task: Task) -> bool:
        keys = self.keys[task.item.id]
        sources = {(source.stage, keys[source.stage].key) for source in stage.wires.values()}
        if sources & self.failed:
            self.failed.add((stage.index, task.keyed.key))
            return False
        return True

    def _run_stage(self, plan: StagePlan, tasks: list[Task], cached: int) -> None:
        supervisor = self.supervisor
        Attempts(
            assembly=self.assembly,
            memory=plan,
            keys=self.keys,
            directory=supervisor.directory,
            announcer=self.announcer,
            launchers=self.launchers,
            interrupts=supervisor.interrupts,
            settle=partial(self._settle, plan.stage),
        ).run(tasks, cached)

    def _settle(self, stage: PipelineStage, task: Task, done: bool) -> None:
        """Give what was made for one item to all that have its key; remember what could not be made."""
        if not done:
            self.failed.add((stage.index, task.keyed.key))
        elif stage.is_last:
            directory, key = self.supervisor.directory, task.keyed.key
            own = output_paths(stage, directory, task.item.id, key)
            for item in task.sharing:
                theirs = output_paths(stage, directory, item, key)
                make_links([(own[name], theirs[name]) for name in own if own[name].exists()])

    def _outputs(self) -> list[Path]:
        """Files that the last stages leave, in the order of the items."""
        directory = self.supervisor.directory
        return [
            path
            for item, keyed in self.keys.items()
            for stage in self.supervisor.pipeline.stages
            if stage.is_last
            for path in output_paths(stage, directory, item, keyed[stage.index].key).values()
        ]
