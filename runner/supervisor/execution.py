"""The part of a run that holds its directory's lock: models, plans and checks, then stage by stage."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import ExitCode, InterruptedRunError, RunnerError, StorageError
from runner.events import Warned
from runner.files.storage import remove_if_empty, storage_errors
from runner.machine.cpu import core_count
from runner.plan.choose import plan_stages
from runner.rundir.history import failed_items
from runner.supervisor.adapter_check import try_adapters
from runner.supervisor.measuring import measuring
from runner.supervisor.model_check import check_components
from runner.supervisor.preparing import prepare
from runner.supervisor.stage_runner import StageRunner
from runner.supervisor.task_tracker import TaskTracker
from runner.units import format_size
from runner.work.checks import Findings, look
from runner.work.demand import Demand, Task, demand
from runner.work.models import ResolvedModels, fetch_missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan
    from runner.supervisor.device_locks import DeviceLocks
    from runner.supervisor.event_publisher import EventPublisher
    from runner.supervisor.launch import Launchers
    from runner.supervisor.signals import Interrupts
    from runner.supervisor.spawn import Launcher
    from runner.work.work import Work


RESERVE = 16 << 20  # bytes of disk that should be free for the journal, logs and saved states


@dataclass
class Execution:
    """A run in its locked directory, with all that it needs open."""

    work: Work
    """Without keys until all models are here."""
    resolved: ResolvedModels
    findings: Findings
    """Of the models that are here."""
    forced: list[int]
    """Stages, by index, whose results are made again."""
    publisher: EventPublisher
    launchers: Launchers
    locks: DeviceLocks
    interrupts: Interrupts
    retry_failed: bool
    fail_fast: bool

    def run(self) -> ExitCode:
        """Run the stages; ``run_finished`` is published at the end, after an error too.

        Raises:
            RunnerError: an error stopped the run.

        """
        self.publisher.run_started()
        error: RunnerError | None = None
        code = ExitCode.BUG
        try:
            self._prepare_models()
            code = ExitCode.ITEMS_FAILED if self._run_stages() else ExitCode.DONE
        except KeyboardInterrupt:
            error, code = InterruptedRunError("stopped between stages"), ExitCode.INTERRUPTED
            raise error from None
        except RunnerError as stopped:
            error, code = stopped, stopped.exit_code
            raise
        finally:
            outputs = [path for path in self.work.outputs() if path.is_file()]
            self.publisher.run_finished(code, outputs, error)
        return code

    def _prepare_models(self) -> None:
        """Download missing models, and compute the keys."""
        stages = self.work.pipeline.stages
        absent = None in self.resolved.models.values()
        self._try_adapters()
        if absent:  # what does not fit is refused before the download, not after it
            plans = self._plan(stages)
            self.findings = look(self.resolved, stages)
            self._check_models(plans)
        self.resolved = fetch_missing(self.resolved, self.publisher)
        if absent:
            self.findings = look(self.resolved, stages)
        self.work = replace(self.work, keys=self.resolved.keys() or {})

    def _try_adapters(self) -> None:
        """Try adapters on the model: which stages they change belongs to keys and plans.

        Raises:
            ManifestError: one does not fit the model.

        """
        log = self.work.directory.log("check")
        for warning in try_adapters(
            self.resolved, lambda: self._launcher(self.work.pipeline.stages[0]).start(log)
        ):
            self.publisher.warning(Warned(kind="model", message=str(warning), stage=warning.stage))
        remove_if_empty(log)

    def _launcher(self, stage: PipelineStage) -> Launcher:
        """What starts workers for a stage."""
        return self.launchers.get(stage.device, stage.budget.threads or core_count())

    def _run_stages(self) -> bool:
        """Run every stage that has tasks; returns whether any task failed."""
        found = demand(self.work, self.forced)
        tracker = TaskTracker(self.work, found)
        tracker.tidy()
        if self.retry_failed:
            self._keep_failed(found)
        stages = [stage for stage in self.work.pipeline.stages if found.tasks[stage.index]]
        plans = self._plan(stages)
        self._check_models(plans)
        for plan in plans:
            stage = plan.stage
            tasks = [task for task in found.tasks[stage.index] if tracker.can_run(stage, task)]
            if tasks:
                self._prepare_components(stage)
                self._check_disk(plan, len(tasks))
                self._run_stage(plan, tasks, found.cached[stage.index], tracker)
        return bool(tracker.failed)

    def _prepare_components(self, stage: PipelineStage) -> None:
        """Quantise or convert the stage's components that are to be, and are not in the cache yet."""
        model = self.resolved.placed(stage)
        for one in model.prepared.values() if model else ():
            if not one.is_done:
                launcher = self.launchers.get("cpu", stage.budget.threads or core_count())
                log = self.work.directory.log("prepare")
                progress = partial(self.publisher.preparing, stage.name, one.component.name, one.scheme)
                prepare(one, launcher, log, self.interrupts, progress)
                remove_if_empty(log)

    def _keep_failed(self, found: Demand) -> None:
        failed = failed_items(self.work.directory.journal)
        found.tasks = [[t for t in tasks if failed.intersection(t.items)] for tasks in found.tasks]

    def _plan(self, stages: Sequence[PipelineStage]) -> list[StagePlan]:
        """Plan all stages before the first one starts.

        Raises:
            BudgetError: one does not fit.

        """
        with measuring(self.publisher):
            plans = plan_stages(self.work.pipeline, stages, self.resolved.shapes)
        for plan in plans:
            plan.check()
        return plans

    def _check_models(self, plans: Sequence[StagePlan]) -> None:
        """Check models and parameters before the first stage starts; publish the warnings.

        Raises:
            ManifestError: a model does not fit its stage, or its parameters.

        """
        findings, self.findings = self.findings, Findings()
        if plans:
            launcher = self._launcher(plans[0].stage)
            log = self.work.directory.log("check")
            stages = [plan.stage for plan in plans]
            check_components(self.resolved, stages, findings, lambda: launcher.start(log))
            remove_if_empty(log)
        for warning in findings.warnings:
            self.publisher.warning(Warned(kind="model", message=str(warning), stage=warning.stage))
        findings.problems.check()

    def _check_disk(self, plan: StagePlan, items: int) -> None:
        """Check that the disk has room for the stage's results.

        Raises:
            StorageError: it has not.

        """
        folder = self.work.directory.path
        with storage_errors(folder):
            free = shutil.disk_usage(folder).free
        needed = plan.need.item.output_bytes * items
        if needed + RESERVE > free:
            raise StorageError(
                f"stage '{plan.stage.name}': its {items} items leave up to {format_size(needed)} in "
                f"{folder}, and {format_size(free)} are free there; make room, or keep the run elsewhere "
                "(--runs-dir)"
            )

    def _run_stage(self, plan: StagePlan, tasks: list[Task], cached: int, tracker: TaskTracker) -> None:
        stage = plan.stage
        self.resolved.refuse_changed(stage)
        for note in self.resolved.notes(stage):
            self.publisher.warning(Warned(kind="variant_absent", message=note, stage=stage.name))
        runner = StageRunner(
            work=self.work,
            resolved=self.resolved,
            plan=plan,
            publisher=self.publisher,
            launchers=self.launchers,
            interrupts=self.interrupts,
            settle=partial(tracker.settle, stage),
            fail_fast=self.fail_fast,
        )
        with self.locks.held(plan.limits.device, self.publisher.waiting):
            runner.run(tasks, cached)
