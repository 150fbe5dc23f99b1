"""A whole run: what is missing is made, stage by stage, one worker at a time."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import ExitCode, InterruptedRunError, RunnerError, StorageError
from runner.events import Waiting, Warned
from runner.files.storage import remove_if_empty, storage_errors, write_atomically
from runner.machine import cgroup
from runner.machine.cpu import core_count
from runner.machine.devices import choose_device
from runner.manifest.record import as_run
from runner.plan.choose import plan_stage
from runner.report.live import LiveReport
from runner.rundir.history import failed_items
from runner.rundir.journal import Events, Journal
from runner.supervisor.devices import DeviceLocks
from runner.supervisor.event_publisher import EventPublisher
from runner.supervisor.handoff_refcounts import HandoffRefCounts
from runner.supervisor.launch import Launchers
from runner.supervisor.model_check import check_components
from runner.supervisor.signals import Interrupts
from runner.supervisor.stage_runner import StageRunner
from runner.units import format_size
from runner.work.checks import Findings, look
from runner.work.demand import Task, demand, make_links, output_paths
from runner.work.models import ResolvedModels, assemble, fetch_missing, forced_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory
    from runner.work.keys import Keyed


ROOM = 16 << 20  # bytes that should be free for the journal, logs and saved states


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked for besides its manifest."""

    fresh: str | None = None
    """The stage, or ``ALL_STAGES``, from which all is made again."""
    wait: bool = False
    """Wait while another run holds the run directory."""
    retry_failed: bool = False
    """Only the items that failed the last time."""
    fail_fast: bool = False
    """Stop at the first item that fails."""


@dataclass
class Supervisor:
    """Runs a pipeline in a run directory, and tells ``events`` of it."""

    pipeline: Pipeline
    directory: RunDirectory
    events: Events
    wishes: RunOptions
    interrupts: Interrupts = field(default_factory=Interrupts)
    launchers: Callable[[Pipeline, RunDirectory, Sequence[int]], AbstractContextManager[Launchers]] = (
        Launchers
    )
    """What starts the workers."""

    def run(self) -> ExitCode:
        """Make what is missing.

        Raises:
            RunnerError: the run cannot begin. Once it has, errors are told through ``run_finished`` too.

        """
        devices = [choose_device(stage.budget) for stage in self.pipeline.stages]
        forced = forced_stages(self.pipeline, self.wishes.fresh)
        assembly = assemble(self.pipeline)
        here = [stage for stage in self.pipeline.stages if not stage.spec.components or assembly.model(stage)]
        findings = look(assembly, here)
        findings.problems.check()
        with self.interrupts.caught(), ExitStack() as stack:
            lock = stack.enter_context(self.directory.locked(self.tell_waiting if self.wishes.wait else None))
            stack.callback(self.directory.sweep)  # workers that are killed leave something too
            journal = Journal(self.directory.journal)
            stack.callback(journal.close)
            self.events.listeners.append(journal)
            report = LiveReport(self.directory)
            stack.callback(report.close)
            self.events.listeners.append(report)
            self.directory.sweep()
            cgroup.sweep()
            write_atomically(self.directory.manifest, as_run(self.pipeline.manifest, self.directory.path))
            announcer = EventPublisher(self.pipeline, self.directory, self.events)
            cards = DeviceLocks(devices, stack)
            inherit = (lock, *cards.descriptors)
            launchers = stack.enter_context(self.launchers(self.pipeline, self.directory, inherit))
            return _Running(self, assembly, forced, announcer, launchers, cards, findings).run()

    def tell_waiting(self, reason: str) -> None:
        """Have whoever watches know what the run waits for."""
        self.events.emit(Waiting(reason=reason))


@dataclass
class _Running:
    """The part of a run that holds the lock."""

    supervisor: Supervisor
    assembly: ResolvedModels
    forced: list[int]
    announcer: EventPublisher
    launchers: Launchers
    cards: DeviceLocks
    findings: Findings
    """Of the models that were here."""
    keys: Mapping[str, tuple[Keyed, ...]] = field(default_factory=dict)
    needed: HandoffRefCounts | None = None
    failed: set[tuple[int, str]] = field(default_factory=set)
    """Stages (by index) and keys that could not be made: what takes from them cannot be made either."""

    def run(self) -> ExitCode:
        supervisor = self.supervisor
        error: RunnerError | None = None
        code = ExitCode.BUG
        self.announcer.run_started()
        try:
            absent = None in self.assembly.models.values()
            if absent:  # nobody waits for a download to be refused
                self._plan(supervisor.pipeline.stages)
                self.findings = look(self.assembly, supervisor.pipeline.stages)
                self._check_models(supervisor.pipeline.stages)
            self.assembly = fetch_missing(self.assembly, self.announcer)
            if absent:
                self.findings = look(self.assembly, supervisor.pipeline.stages)
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
            self.announcer.run_finished(code, [p for p in self._outputs() if p.is_file()], error)
        return code

    def _run_stages(self) -> None:
        supervisor = self.supervisor
        found = demand(supervisor.pipeline, self.keys, supervisor.directory, self.forced)
        for path in found.damaged:
            with storage_errors(path):
                path.unlink(missing_ok=True)
        make_links(found.renamed)
        self._remove_states(found.tasks)
        if supervisor.pipeline.manifest.table.run.keep_handoffs == "needed":
            self.needed = HandoffRefCounts(supervisor.pipeline, self.keys, supervisor.directory, found.tasks)
            self.needed.remove_unneeded()
        if supervisor.wishes.retry_failed:
            failed = failed_items(supervisor.directory.journal)
            found.tasks = [[t for t in tasks if failed.intersection(t.items)] for tasks in found.tasks]
        stages = [stage for stage in supervisor.pipeline.stages if found.tasks[stage.index]]
        plans = self._plan(stages)
        self._check_models(stages)
        for stage, plan in zip(stages, plans, strict=True):
            tasks = [task for task in found.tasks[stage.index] if self._is_possible(stage, task)]
            if tasks:
                self._check_room(plan, len(tasks))
                self._run_stage(plan, tasks, found.cached[stage.index])

    def _remove_states(self, tasks: Sequence[Sequence[Task]]) -> None:
        """Remove what was saved of items that are done: a supervisor that is killed may leave some behind."""
        directory = self.supervisor.directory
        for stage, theirs in zip(self.supervisor.pipeline.stages, tasks, strict=True):
            states = list(directory.states(stage.name))
            if not states:
                continue
            done = {keyed[stage.index].key for keyed in self.keys.values()} - {t.keyed.key for t in theirs}
            for state in states:
                if state.stem in done:
                    with storage_errors(state):
                        state.unlink(missing_ok=True)

    def _plan(self, stages: Sequence[PipelineStage]) -> list[StagePlan]:
        """Plan stages, and refuse them all if one does not fit: before the first starts, not hours later.

        Raises:
            BudgetError: one does not fit.

        """
        plans = [plan_stage(self.supervisor.pipeline, s, self.assembly.shapes(s)) for s in stages]
        for plan in plans:
            plan.check()
        return plans

    def _check_models(self, stages: Sequence[PipelineStage]) -> None:
        """Refuse models and parameters that do not go together: before the first stage, not hours later.

        Raises:
            ManifestError: some do not; what is only worth a warning is announced.

        """
        findings, self.findings = self.findings, Findings()
        if stages:
            budget = stages[0].budget
            launcher = self.launchers.get(choose_device(budget), budget.threads or core_count())
            log = self.supervisor.directory.log("check")
            check_components(self.assembly, stages, findings, lambda: launcher.start(log))
            remove_if_empty(log)
        for warning in findings.warnings:
            self.announcer.warning(Warned(kind="model", message=str(warning), stage=warning.stage))
        findings.problems.check()

    def _check_room(self, plan: StagePlan, items: int) -> None:
        """Refuse a stage whose results the disk cannot hold: now, and not in the middle of the night.

        Raises:
            StorageError: it cannot.

        """
        folder = self.supervisor.directory.path
        with storage_errors(folder):
            free = shutil.disk_usage(folder).free
        needed = plan.need.item.output_bytes * items
        if needed + ROOM > free:
            raise StorageError(
                f"stage '{plan.stage.name}': its {items} items leave up to {format_size(needed)} in "
                f"{folder}, and {format_size(free)} are free there; make room, or keep the run elsewhere "
                "(--runs-dir)"
            )

    def _is_possible(self, stage: PipelineStage, task: Task) -> bool:
        keys = self.keys[task.item.id]
        sources = {(n, keys[n].key) for n in stage.sources}
        if sources & self.failed:
            self.failed.add((stage.index, task.keyed.key))
            return False
        return True

    def _run_stage(self, plan: StagePlan, tasks: list[Task], cached: int) -> None:
        supervisor = self.supervisor
        self.assembly.refuse_changed(plan.stage)
        for note in self.assembly.notes(plan.stage):
            self.announcer.warning(Warned(kind="variant_absent", message=note, stage=plan.stage.name))
        attempts = StageRunner(
            assembly=self.assembly,
            memory=plan,
            keys=self.keys,
            directory=supervisor.directory,
            announcer=self.announcer,
            launchers=self.launchers,
            interrupts=supervisor.interrupts,
            settle=partial(self._settle, plan.stage),
            fail_fast=supervisor.wishes.fail_fast,
        )
        with self.cards.held(plan.limits.device, supervisor.tell_waiting):
            attempts.run(tasks, cached)

    def _settle(self, stage: PipelineStage, task: Task, done: bool) -> None:
        """Give what was made for one item to all that have its key; remember what could not be made.

        Raises:
            StorageError: that cannot be written, or the run directory is gone.

        """
        self.supervisor.directory.check_held()
        if not done:
            self.failed.add((stage.index, task.keyed.key))
        elif stage.is_terminal:
            directory, key = self.supervisor.directory, task.keyed.key
            own = output_paths(stage, directory, task.item.id, key)
            for item in task.duplicate_items:
                theirs = output_paths(stage, directory, item, key)
                make_links([(own[name], theirs[name]) for name in own if own[name].exists()])
        if done and self.needed is not None:
            self.needed.done(stage, task)

    def _outputs(self) -> list[Path]:
        """Files that the last stages leave, in the order of the items."""
        directory = self.supervisor.directory
        return [
            path
            for item, keyed in self.keys.items()
            for stage in self.supervisor.pipeline.stages
            if stage.is_terminal
            for path in output_paths(stage, directory, item, keyed[stage.index].key).values()
        ]
