"""Running the first items of a manifest, so that the inputs of each of its stages are there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode, RunnerError
from runner.events import ItemFinished, Memory, StageStarted
from runner.manifest.load import load
from runner.pipeline.binding import bind
from runner.plugin_check import overtime
from runner.plugin_check.checks import BROKEN, OK, RUNS, Verdict
from runner.plugin_check.harness import first_items
from runner.plugin_check.overtime import TimeLimit
from runner.plugins import discover
from runner.rundir.journal import Events
from runner.supervisor.run import RunOptions, Supervisor
from runner.work.models import run_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event
    from runner.pipeline.binding import Pipeline
    from runner.plugin_check.overtime import CallSite
    from runner.plugin_check.requests import CheckRequest

GRACE = 30.0  # seconds, for the engine to end an item whose time is over


class FirstRun:
    """The run of a manifest's first items, each of which has the request's time at each stage."""

    def __init__(self, request: CheckRequest, tell: Callable[..., None]) -> None:
        self._errand = request
        self._stage = ""
        self._failure: Verdict | None = None
        # loading has as much time as an item, whose end the engine sees to
        self._limit = TimeLimit(2 * request.seconds + GRACE, self._end)
        self._tell = tell

    def run(self) -> None:
        """Run, and tell what came of it."""
        with self._limit:
            self._tell(verdict=vars(self._verdict()))

    def _verdict(self) -> Verdict:
        subject = self._errand.manifest
        try:
            pipeline = self._pipeline()
            directory = run_directory(pipeline, Path(self._errand.folder))
            supervisor = Supervisor(pipeline, directory, Events(), RunOptions(fail_fast=True))
            supervisor.events.listeners.append(self._listen)
            code = supervisor.run()
        except RunnerError as error:
            return self._failure or Verdict(subject, RUNS, BROKEN, str(error))
        if code != ExitCode.DONE:
            return self._failure or Verdict(subject, RUNS, BROKEN, f"exit code {code}")
        return Verdict(subject, RUNS, OK, f"{len(pipeline.items)} items")

    def _end(self, stack: list[CallSite]) -> None:
        """The time is over, and no item came to an end: a worker loads its stage, or this process plans."""
        told, log = overtime.tell(stack, self._errand.seconds, ())
        if self._stage:
            told, log = f"stage '{self._stage}' loads, and began no item in {self._errand.seconds:g} s", ""
        verdict = Verdict(self._errand.manifest, RUNS, BROKEN, told, overtime.ADVICE, log)
        self._tell(verdict=vars(verdict))
        os._exit(0)  # its workers end with it

    def _pipeline(self) -> Pipeline:
        pipeline = first_items(bind(load(Path(self._errand.manifest)), discover()))
        # the time is each item's: the engine ends it then, and says at which line it was
        limits = {"timeout": self._errand.seconds, "retries": 0}
        stages = [replace(s, table=s.table.model_copy(update=limits)) for s in pipeline.stages]
        self._starts = {stage.name: stage.spec.start for stage in stages}
        return replace(pipeline, stages=type(pipeline.stages)(stages))

    def _listen(self, event: Event) -> None:
        if not isinstance(event, Memory):
            self._limit.restart()
            self._tell(event=event.event)  # this process is alive
        if isinstance(event, StageStarted):
            self._stage = event.stage
        elif isinstance(event, ItemFinished) and event.error and self._failure is None:
            self._failure = self._of_item(event)

    def _of_item(self, event: ItemFinished) -> Verdict:
        stage, subject = event.stage, self._errand.manifest
        told = f"item '{event.item}' failed in stage '{stage}'"
        if event.seconds <= self._errand.seconds:
            return Verdict(subject, RUNS, BROKEN, f"{told}: {event.error}")
        package = self._starts[stage].partition(":")[0].partition(".")[0]
        stack = overtime.places(event.traceback or "")[::-1]
        own = [place for place in stack if not place.is_ours]
        where, log = overtime.tell(own, self._errand.seconds, {package})
        return Verdict(subject, RUNS, BROKEN, f"{told}: {where}", overtime.ADVICE, log)
