"""Runs the first items of a manifest, which makes the inputs of each of its stages."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode, RunnerError
from runner.events import ItemFinished, Memory, StageStarted
from runner.manifest.load import load
from runner.pipeline.binding import bind
from runner.plugin_check import time_limit
from runner.plugin_check.checks import BROKEN, OK, RUNS, Verdict
from runner.plugin_check.harness import first_items
from runner.plugin_check.time_limit import TimeLimit
from runner.plugins import discover
from runner.rundir.journal import Events
from runner.supervisor.run import RunOptions, Supervisor
from runner.work.work import run_directory

if TYPE_CHECKING:
    from runner.events import Event
    from runner.pipeline.binding import Pipeline
    from runner.plugin_check.reporter import Reporter
    from runner.plugin_check.requests import CheckRequest
    from runner.plugin_check.time_limit import CallSite

GRACE = 30.0  # seconds that the engine has to end an item after its timeout


class FirstRun:
    """The run of a manifest's first items; each has the request's time at each stage."""

    def __init__(self, request: CheckRequest, reporter: Reporter) -> None:
        self._request = request
        self._reporter = reporter
        self._stage = ""
        self._failure: Verdict | None = None
        # the engine ends items that take too long; this limit is for loading, which may take as long
        self._limit = TimeLimit(2 * request.seconds + GRACE, self._on_timeout)

    def run(self) -> None:
        """Run the items and report one verdict."""
        with self._limit:
            self._reporter.write(verdict=vars(self._verdict()))

    def _verdict(self) -> Verdict:
        subject = self._request.manifest
        try:
            pipeline = self._pipeline()
            directory = run_directory(pipeline, Path(self._request.folder))
            supervisor = Supervisor(pipeline, directory, Events(), RunOptions(fail_fast=True))
            supervisor.events.listeners.append(self._on_event)
            code = supervisor.run()
        except RunnerError as error:
            return self._failure or Verdict(subject, RUNS, BROKEN, str(error))
        if code != ExitCode.DONE:
            return self._failure or Verdict(subject, RUNS, BROKEN, f"exit code {code}")
        return Verdict(subject, RUNS, OK, f"{len(pipeline.items)} items")

    def _on_timeout(self, stack: list[CallSite]) -> None:
        """Report the timeout, of a worker that loads its stage or of planning, and exit."""
        message, log = time_limit.describe(stack, self._request.seconds, ())
        if self._stage:
            message = f"stage '{self._stage}' is loading, and began no item in {self._request.seconds:g} s"
            log = ""
        verdict = Verdict(self._request.manifest, RUNS, BROKEN, message, time_limit.ADVICE, log)
        self._reporter.write(verdict=vars(verdict))
        os._exit(0)  # its workers end with it

    def _pipeline(self) -> Pipeline:
        pipeline = first_items(bind(load(Path(self._request.manifest)), discover()))
        limits = {"timeout": self._request.seconds, "retries": 0}
        stages = [replace(s, table=s.table.model_copy(update=limits)) for s in pipeline.stages]
        self._starts = {stage.name: stage.spec.start for stage in stages}
        return replace(pipeline, stages=type(pipeline.stages)(stages))

    def _on_event(self, event: Event) -> None:
        if not isinstance(event, Memory):  # which is sent whether or not anything goes on
            self._limit.restart()
            self._reporter.write(event=event.event)  # the sender waits for a sign of life
        if isinstance(event, StageStarted):
            self._stage = event.stage
        elif isinstance(event, ItemFinished) and event.error and self._failure is None:
            self._failure = self._item_failure(event)

    def _item_failure(self, event: ItemFinished) -> Verdict:
        stage, subject = event.stage, self._request.manifest
        failure = f"item '{event.item}' failed in stage '{stage}'"
        if event.seconds <= self._request.seconds:
            return Verdict(subject, RUNS, BROKEN, f"{failure}: {event.error}")
        package = self._starts[stage].partition(":")[0].partition(".")[0]
        stack = time_limit.call_sites(event.traceback or "")[::-1]
        own = [site for site in stack if not site.is_in_runner]
        message, log = time_limit.describe(own, self._request.seconds, {package})
        return Verdict(subject, RUNS, BROKEN, f"{failure}: {message}", time_limit.ADVICE, log)
