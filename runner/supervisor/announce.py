"""Telling of a run as it goes: events to who listens (display, journal, ``--json``), hooks to plugins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from runner.api import ItemResult, Run, StageResult, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.errors import ExitCode, RunnerError
    from runner.journal import Events
    from runner.plan.pipeline import Pipeline
    from runner.rundir import RunDirectory


class Announcer:
    """The one place where events and hooks meet, so that both always tell the same."""

    def __init__(self, pipeline: Pipeline, directory: RunDirectory, events: Events) -> None:
        self.events = events
        self._plugins = pipeline.plugins
        self._started = time.monotonic()
        self._run = Run(
            name=pipeline.manifest.table.name,
            directory=directory.path,
            manifest=pipeline.manifest.path,
            stages=[stage.name for stage in pipeline.stages],
            items=len(pipeline.items),
        )

    def run_started(self) -> None:
        run = self._run
        self.events.emit(
            "run_started",
            run=run.name,
            manifest=str(run.manifest),
            stages=list(run.stages),
            items=run.items,
        )
        self._plugins.notify("runner_run_started", run=run)

    def fetching(self, source: str, done: int, total: int) -> None:
        """A model is being downloaded: bytes so far, and in all."""
        self.events.emit("progress", stage="fetch", item=source, step=done, steps=total)

    def stage_started(self, stage: str, items: int, placement: str, predicted: Mapping[str, Any]) -> None:
        self.events.emit(
            "stage_started", stage=stage, items=items, placement=placement, predicted=dict(predicted)
        )
        self._plugins.notify("runner_stage_started", run=self._run, stage=stage)

    def out_of_memory(
        self,
        stage: str,
        placement: str,
        predicted: Mapping[str, Any],
        measured: Mapping[str, Any],
        error: str,
        next_placement: str | None,
    ) -> None:
        """A worker ran out of memory; ``next_placement`` is what the stage goes on with, if it does."""
        self.events.emit(
            "out_of_memory",
            stage=stage,
            placement=placement,
            predicted=dict(predicted),
            measured=dict(measured),
            error=error,
            next=next_placement,
        )

    def item_finished(self, item: ItemResult, **more: Any) -> None:
        """``more`` goes to the log alone: a traceback, the number of attempts."""
        self.events.emit("item_finished", **vars(item), **more)
        self._plugins.notify("runner_item_finished", run=self._run, item=item)

    def stage_finished(self, result: StageResult) -> None:
        self.events.emit("stage_finished", **vars(result))
        self._plugins.notify("runner_stage_finished", run=self._run, result=result)

    def run_finished(self, code: ExitCode, outputs: Sequence[Path], error: RunnerError | None) -> None:
        summary = Summary(int(code), outputs, round(time.monotonic() - self._started, 3))
        told = {
            "exit_code": summary.exit_code,
            "outputs": list(map(str, outputs)),
            "seconds": summary.seconds,
        }
        self.events.emit("run_finished", **told, **({"error": str(error)} if error else {}))
        self._plugins.notify("runner_run_finished", run=self._run, summary=summary)
