"""Runs stages on this machine: finds models, plans and checks, then starts workers, stage by stage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runner.accelerator.names import CPU
from runner.events import Warned
from runner.files.storage import remove_if_empty
from runner.machine.cpu import core_count
from runner.plan.choose import plan_stages
from runner.protocol import Prepare
from runner.supervisor.device_locks import DeviceLocks
from runner.supervisor.processes.launch import Launchers
from runner.supervisor.requests.adapter_check import try_adapters
from runner.supervisor.requests.measuring import measuring
from runner.supervisor.requests.model_check import check_components
from runner.supervisor.requests.preparing import prepare
from runner.supervisor.stage_runner import StageRunner
from runner.work.checks import Findings, look
from runner.work.fetching import fetch_missing
from runner.work.models import resolve_models

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from runner.files.hashes import Identities
    from runner.machine.describe import Machine
    from runner.model.sources import ComposedModel
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.executor import OpenRun, StageTasks
    from runner.supervisor.processes.spawn import Process
    from runner.work.keys import Keys
    from runner.work.models import ResolvedModels

    OpenLaunchers = Callable[[Pipeline, RunDirectory, Sequence[int]], AbstractContextManager[Launchers]]


class LocalExecutor:
    """The executor of runs on this machine."""

    _run: OpenRun
    _locks: DeviceLocks
    _launchers: Launchers

    def __init__(
        self, pipeline: Pipeline, launchers: OpenLaunchers = Launchers, machine: Machine | None = None
    ) -> None:
        """``launchers`` starts the workers. ``machine`` is planned for, by default all of this one.

        Raises:
            RunnerError: a device is not here, or a model that is here does not fit.

        """
        self._pipeline = pipeline
        self._open_launchers = launchers
        self._machine = machine
        self._devices = [stage.device for stage in pipeline.stages]
        self._resolved = resolve_models(pipeline)
        stages = pipeline.stages
        here = [stage for stage in stages if not stage.components or self._resolved.model(stage)]
        self._findings = look(self._resolved, here)
        """Of the models that are here."""
        self._findings.problems.check()
        self.plans: dict[str, StagePlan] = {}
        """Of the stages that :meth:`plan` was asked for, by name."""

    @property
    def resolved(self) -> ResolvedModels:
        """The models; all of them after :meth:`prepare`."""
        return self._resolved

    def open(self, run: OpenRun, stack: ExitStack) -> None:
        self._run = run
        self._locks = DeviceLocks(self._devices, stack)
        inherit = (*([] if run.lock is None else [run.lock]), *self._locks.descriptors)
        self._launchers = stack.enter_context(self._open_launchers(run.pipeline, run.directory, inherit))

    def prepare(self) -> Keys:
        """Download missing models, and compute the keys."""
        stages = self._pipeline.stages
        absent = None in self._resolved.models.values()
        self._try_adapters()
        if absent:  # what does not fit is refused before the download, not after it
            plans = self._plan(stages)
            self._findings = look(self._resolved, stages)
            self._check_models(plans)
        self._resolved = fetch_missing(self._resolved, self._run.publisher)
        if absent:
            self._findings = look(self._resolved, stages)
        return self._resolved.keys() or {}

    def _try_adapters(self) -> None:
        """Try adapters on the model: which stages they change belongs to keys and plans.

        Raises:
            ManifestError: one does not fit the model.

        """
        log = self._run.directory.log("check")
        start = partial(self._start, self._pipeline.stages[0], log)
        for warning in try_adapters(self._resolved, start):
            self._run.publisher.warning(Warned(kind="model", message=str(warning), stage=warning.stage))
        remove_if_empty(log)

    def _start(self, stage: PipelineStage, log: Path) -> Process:
        """Start a worker of the kind that a stage has."""
        return self._launchers.get(stage.device, stage.budget.threads or core_count()).start(log)

    def plan(self, stages: Sequence[PipelineStage]) -> None:
        plans = self._plan(stages)
        self._check_models(plans)
        self.plans = {plan.stage.name: plan for plan in plans}

    def output_bytes(self, stage: PipelineStage) -> int:
        return self.plans[stage.name].need.item.output_bytes

    def run_stage(self, work: StageTasks) -> None:
        stage, plan = work.stage, self.plans[work.stage.name]
        publisher = self._run.publisher
        unchanged = partial(self._resolved.unchanged, stage)
        files = unchanged()
        model = self._resolved.placed(stage)
        self._prepare_components(stage, model, files)
        for note, kind in self._resolved.notes(stage).items():
            publisher.warning(Warned(kind=kind, message=note, stage=stage.name))
        runner = StageRunner(
            work=work.work,
            model=model,
            plan=plan,
            publisher=publisher,
            launchers=self._launchers,
            interrupts=self._run.interrupts,
            settle=work.settle,
            fail_fast=self._run.fail_fast,
            feed=work.feed,
            source=work.source,
            unchanged=unchanged,
        )
        with self._locks.held(plan.limits.device, publisher.waiting):
            runner.run(work.tasks, work.cached)

    def _prepare_components(
        self, stage: PipelineStage, model: ComposedModel | None, files: Identities
    ) -> None:
        """Quantise or convert the stage's components that are to be, and are not in the cache yet."""
        for one in model.prepared.values() if model else ():
            if not one.is_done:
                launcher = self._launchers.get(CPU, stage.budget.threads or core_count())
                log = self._run.directory.log("prepare")
                progress = partial(self._run.publisher.preparing, stage.name, one.component.name, one.scheme)
                prepare(Prepare(one, files), launcher, log, self._run.interrupts, progress)
                remove_if_empty(log)

    def _plan(self, stages: Sequence[PipelineStage]) -> list[StagePlan]:
        """Plan stages, before the first one starts.

        Raises:
            BudgetError: one does not fit.

        """
        with measuring(self._run.publisher):
            plans = plan_stages(self._pipeline, stages, self._resolved.shapes, self._machine)
        for plan in plans:
            plan.check()
        return plans

    def _check_models(self, plans: Sequence[StagePlan]) -> None:
        """Check models and parameters before the first stage starts; publish the warnings.

        Raises:
            ManifestError: a model does not fit its stage, or its parameters.

        """
        findings, self._findings = self._findings, Findings()
        if plans:
            log = self._run.directory.log("check")
            stages = [plan.stage for plan in plans]
            check_components(self._resolved, stages, findings, partial(self._start, stages[0], log))
            remove_if_empty(log)
        for warning in findings.warnings:
            self._run.publisher.warning(Warned(kind="model", message=str(warning), stage=warning.stage))
        findings.problems.check()
