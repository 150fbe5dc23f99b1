"""Checks the models' components in a worker before the first stage starts.

Importing their libraries takes seconds: a result is kept, and where there is a fork server, its fork checks.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.events import Checked
from runner.machine.active_time import active_seconds
from runner.pipeline.model_sources import where_component
from runner.protocol import ModelCheck
from runner.supervisor.processes.connection import WorkerConnection
from runner.supervisor.processes.spawn import Spawner
from runner.work.checks import Findings, Warned, component_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runner.model.checks.adapters import AdapterCheck
    from runner.model.checks.request import ComponentCheck
    from runner.pipeline.stage import PipelineStage
    from runner.supervisor.processes.spawn import Process
    from runner.work.models import ResolvedModels

SECONDS = 120.0  # for one component, with imports


def check_components(
    resolved: ResolvedModels,
    stages: Iterable[PipelineStage],
    findings: Findings,
    start: Callable[[], Process] | None = None,
) -> None:
    """Add a problem for each component whose files do not fit its class.

    ``start`` starts the worker; a new interpreter by default.
    """
    todo = component_checks(resolved, stages, findings.refused)
    if not todo:
        return
    results = results_of([check for _, check in todo], start)
    for (stage, check), result in zip(todo, results, strict=True):
        problem = result and result.problem
        where = where_component(resolved.pipeline.manifest, stage, check.shapes.component.name)
        if problem:
            findings.problems.add(where, problem, ExitCode.MODEL)
        elif problem == "":
            check.keep()
        else:
            name = check.shapes.component.name
            message = (
                f"whether the files of component '{name}' fit its class is not known before it is loaded"
            )
            findings.warnings[Warned(where, message, stage.name)] = None


def results_of(
    checks: Sequence[ComponentCheck | AdapterCheck], start: Callable[[], Process] | None
) -> list[Checked | None]:
    """The result of each check; None if the worker could not make it. ``start`` as above."""
    if start:
        return _check_in(start(), checks)
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        return _check_in(Spawner(threads=1).start(Path(folder, "check.log")), checks)


def _check_in(process: Process, checks: Sequence[ComponentCheck | AdapterCheck]) -> list[Checked | None]:
    connection = WorkerConnection(process, ModelCheck(tuple(checks)))
    results: list[Checked | None] = []
    deadline = active_seconds() + SECONDS
    try:
        for event in connection.events():
            if isinstance(event, Checked):
                results.append(event)
                deadline = active_seconds() + SECONDS
            elif active_seconds() > deadline:
                connection.kill()
    finally:
        connection.kill()
        with contextlib.suppress(OSError):  # it may have died while reading its request
            process.commands.close()
    return [*results, *[None] * (len(checks) - len(results))]
