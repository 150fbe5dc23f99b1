"""Tries adapters (LoRA) on the model's components in a worker, before keys and plans are made.

Which stages an adapter changes, and by how many bytes, is known only then. Results are cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.manifest.problems import Problems
from runner.model.checks.adapters import as_report
from runner.supervisor.requests.model_check import results_of
from runner.work.checks import Warned

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.manifest.loras import Lora
    from runner.manifest.problems import Position
    from runner.supervisor.processes.spawn import Process
    from runner.work.models import ResolvedModels

UNKNOWN = "whether it fits the model could not be found out: the process that tried it ended"


def try_adapters(resolved: ResolvedModels, start: Callable[[], Process] | None = None) -> list[Warned]:
    """Try the adapters that were not tried yet; returns what users should know of all.

    ``start`` starts the worker; a new interpreter by default.

    Raises:
        ManifestError: an adapter does not fit the model, or a header cannot be read.

    """
    checks = resolved.adapters.checks
    todo = {lora: check for lora, check in checks.items() if check.report is None}
    problems = Problems()
    if todo:
        results = results_of([*todo.values()], start)
        for (lora, check), result in zip(todo.items(), results, strict=True):
            if result is not None and result.report is not None:
                check.keep(as_report(result.report))
            else:
                message = (result and result.problem) or f"{check.shown}: {UNKNOWN}"
                problems.add(_where(resolved, lora), message, ExitCode.MODEL)
    problems.check()
    return [
        Warned(_where(resolved, lora), f"{check.shown}: {note}", "")
        for lora, check in checks.items()
        for note in (check.report.notes if check.report else ())
    ]


def _where(resolved: ResolvedModels, lora: Lora) -> Position:
    return resolved.pipeline.manifest.where("lora", lora.index, "source")
