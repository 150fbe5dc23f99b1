"""Publishes the progress of a run: events to listeners (display, journal, ``--json``), hooks to plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from runner import events as ev
from runner.api import ItemResult, Run, StageResult, Summary
from runner.machine.active_time import active_seconds
from runner.machine.describe import describe_machine, installed_with
from runner.manifest.record import content_of
from runner.manifest.sources import LORA_WEIGHTS, lora_name
from runner.rundir.memory_series import Series

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.errors import ExitCode, RunnerError
    from runner.events.json_values import Bytes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan
    from runner.rundir.directory import RunDirectory
    from runner.rundir.journal import Events
    from runner.work.demand import Task


NOT_MEASURED = "what an item takes beside the weights could not be measured, and is not in the plan: {}"


@dataclass(frozen=True)
class Outlook:
    """What is expected of a stage before it runs."""

    stage: PipelineStage
    placement: str
    predicted: Bytes
    device: str

    @classmethod
    def of(cls, plan: StagePlan) -> Self:
        return cls(plan.stage, plan.chosen.placement, dict(plan.chosen.predicted), plan.limits.device)


class EventPublisher:
    """Emits each event together with the plugin hook that belongs to it."""

    def __init__(self, pipeline: Pipeline, directory: RunDirectory, events: Events) -> None:
        self.events = events
        self._pipeline = pipeline
        self._plugins = pipeline.plugins
        self._stages = {stage.name: stage for stage in pipeline.stages}
        self._items = {item.id: item for item in pipeline.items}
        self._warned: set[int] = set()
        """Hashes of the warnings that were emitted."""
        self._memory = Series()
        self._stage_started = 0.0
        self._started = active_seconds()
        self._run = Run(
            name=pipeline.manifest.table.name,
            directory=directory.path,
            manifest=pipeline.manifest.path.absolute(),
            stages=[stage.name for stage in pipeline.stages],
            items=len(pipeline.items),
        )

    @property
    def run(self) -> Run:
        """The run, as it is passed to hooks."""
        return self._run

    def run_started(self) -> None:
        run, manifest, stages = self._run, self._pipeline.manifest, self._pipeline.stages
        self.events.emit(
            ev.RunStarted(
                run=run.name,
                manifest=str(run.manifest),
                stages=list(run.stages),
                items=run.items,
                machine=describe_machine(with_accelerators=any(s.budget.device != "cpu" for s in stages)),
                versions=installed_with(self._plugins.distribution_of(s.spec.name) for s in stages),
                content=content_of(manifest),
                overridden=bool(manifest.overrides or manifest.prompts),
                loras={lora_name(one.source, one.name): one.weight for one in manifest.table.lora},
            )
        )
        self._plugins.notify("runner_run_started", run=run)

    def waiting(self, reason: str) -> None:
        """The run waits, for another run or for the user."""
        self.events.emit(ev.Waiting(reason=reason))

    def measuring(self, stage: str, sizes: int) -> None:
        """So many sizes of a stage are measured for the plan."""
        self.events.emit(ev.MeasuringShapes(stage=stage, sizes=sizes))

    def not_measured(self, stage: str, reason: str) -> None:
        """One size of a stage could not be measured."""
        self.warning(ev.Warned(kind="not_measured", message=NOT_MEASURED.format(reason), stage=stage))

    def preparing(self, stage: str, component: str, scheme: str, done: int, total: int) -> None:
        """A component is being quantised or converted: bytes so far, and in all."""
        progress = ev.PrepareProgress(stage=stage, component=component, scheme=scheme, done=done, total=total)
        self.events.emit(progress)

    def fetching(self, source: str, done: int, total: int) -> None:
        """A model is being downloaded: bytes so far, and in all."""
        self.events.emit(ev.FetchProgress(source=source, done=done, total=total))

    def stage_started(self, outlook: Outlook, tasks: Sequence[Task]) -> None:
        """A stage starts with these tasks."""
        self._memory, self._stage_started = Series(), active_seconds()
        stage = outlook.stage
        self.events.emit(
            ev.StageStarted(
                stage=stage.name,
                items=sum(len(task.items) for task in tasks),
                distinct=len(tasks),
                placement=outlook.placement,
                predicted=outlook.predicted,
                budget={"vram": stage.budget.vram, "ram": stage.budget.ram},
                device=outlook.device,
                dtype=stage.table.dtype,
                last=stage.is_terminal,
            )
        )
        self._plugins.notify("runner_stage_started", run=self._run, stage=stage.name)

    def memory(self, stage: str, ram: int) -> None:
        """The stage's worker holds ``ram`` bytes of RAM now."""
        self._memory.add(active_seconds() - self._stage_started, ram)
        self.events.emit(ev.Memory(stage=stage, ram=ram))

    def out_of_memory(
        self, stage: str, placement: str, predicted: Bytes, measured: Bytes, error: str, next_: str | None
    ) -> None:
        """A worker ran out of memory; ``next_`` is the placement to try next, None if there is none."""
        self.events.emit(
            ev.OutOfMemory(
                stage=stage,
                placement=placement,
                predicted=predicted,
                measured=measured,
                error=error,
                next=next_,
            )
        )

    def worker_died(self, stage: str, items: Sequence[str], error: str) -> None:
        """A worker crashed, hung or was killed while it made these items; they are tried once more."""
        self.events.emit(ev.WorkerDied(stage=stage, items=list(items), error=error))

    def warning(self, event: ev.Warned) -> None:
        """A result differs from what the manifest says; repeated warnings are dropped."""
        content = hash((event.kind, event.message, event.stage, event.item))
        if content not in self._warned:
            self._warned.add(content)
            self.events.emit(event)

    def item_finished(
        self, item: ItemResult, traceback: str | None, attempts: int, node: str | None = None
    ) -> None:
        """An item is done or failed; ``traceback`` and ``attempts`` are for the log alone.

        ``node`` is where it was made, if not on this machine.
        """
        params = self._params(item)
        event = ev.ItemFinished(
            **vars(item), params=params, traceback=traceback, attempts=attempts, node=node
        )
        self.events.emit(event)
        self._plugins.notify("runner_item_finished", run=self._run, item=item)

    def stage_finished(self, result: StageResult) -> None:
        self.events.emit(ev.StageFinished(**vars(result), memory=self._memory.points))
        self._plugins.notify("runner_stage_finished", run=self._run, result=result)

    def run_finished(self, code: ExitCode, outputs: Sequence[Path], error: RunnerError | None) -> None:
        summary = Summary(int(code), outputs, round(active_seconds() - self._started, 3))
        self.events.emit(
            ev.RunFinished(
                exit_code=summary.exit_code,
                outputs=list(map(str, outputs)),
                seconds=summary.seconds,
                error=str(error) if error else None,
            )
        )
        self._plugins.notify("runner_run_finished", run=self._run, summary=summary)

    def _params(self, item: ItemResult) -> dict[str, Any]:
        """The item's parameters of this stage and the earlier ones: the prompt is logged for each stage."""
        params: dict[str, Any] = {}
        made = self._items[item.item]
        for params_of_stage in made.params[: self._stages[item.stage].index + 1]:
            params |= params_of_stage.shown
        return {**params, LORA_WEIGHTS: dict(made.lora_weights)} if made.lora_weights else params
