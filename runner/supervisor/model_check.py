"""Having a worker look at the models' components before the first stage starts.

Importing their libraries takes seconds: so it is asked once of a model, and of a fork of the server that has
imported them already, where there is one.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.events import Checked
from runner.machine.active_time import active_seconds
from runner.pipeline.binding import where_source
from runner.protocol import ModelCheck
from runner.supervisor.connection import WorkerConnection
from runner.supervisor.spawn import Spawner
from runner.work.checks import Findings, Warned, component_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runner.model.checks.request import ComponentCheck
    from runner.pipeline.stage import PipelineStage
    from runner.supervisor.spawn import Process
    from runner.work.models import ResolvedModels

SECONDS = 120.0  # for one component, imports included


def check_components(
    assembly: ResolvedModels,
    stages: Iterable[PipelineStage],
    findings: Findings,
    start: Callable[[], Process] | None = None,
) -> None:
    """Add to the findings what of the components' files does not agree with their classes.

    ``start`` starts the worker that looks; a fresh interpreter by default.
    """
    asked = component_checks(assembly, stages, findings.refused)
    if not asked:
        return
    checks = [check for _, check in asked]
    answers = _asked_of(start(), checks) if start else _asked_of_a_new_one(checks)
    for (stage, check), problem in zip(asked, answers, strict=True):
        where = where_source(assembly.pipeline.manifest, stage)
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


def _asked_of_a_new_one(checks: Sequence[ComponentCheck]) -> list[str | None]:
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        return _asked_of(Spawner(threads=1).start(Path(folder, "check.log")), checks)


def _asked_of(process: Process, checks: Sequence[ComponentCheck]) -> list[str | None]:
    """What is wrong with each component: empty if nothing is, None where the worker cannot tell."""
    conversation = WorkerConnection(process, ModelCheck(tuple(checks)))
    answers: list[str | None] = []
    deadline = active_seconds() + SECONDS
    try:
        for event in conversation.events():
            if isinstance(event, Checked):
                answers.append(event.problem)
                deadline = active_seconds() + SECONDS
            elif active_seconds() > deadline:
                conversation.kill()
    finally:
        conversation.kill()
        with contextlib.suppress(OSError):  # it may have died with its request half read
            process.commands.close()
    return [*answers, *[None] * (len(checks) - len(answers))]
