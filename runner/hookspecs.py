"""The hooks of plugins. They run in the supervisor's process: they must be quick and import nothing heavy.

``runner_stages``, ``runner_executors``, ``runner_templates`` and ``runner_demos`` are called once, when
plugins are loaded. The others are called during a run; if an implementation raises, a line is printed on
stderr, and the run and the other implementations go on. An implementation may take fewer arguments than are
listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.api import Demo, Executor, ItemResult, Run, Stage, StageResult, Summary, Template

hookspec = pluggy.HookspecMarker("runner")


@hookspec
def runner_stages() -> Iterable[Stage]:  # type: ignore[empty-body]
    """Return the stages that this plugin offers. Fires when the plugin is loaded."""


@hookspec
def runner_executors() -> Iterable[Executor]:  # type: ignore[empty-body]
    """Return the executors that manifests may choose. Fires when the plugin is loaded."""


@hookspec
def runner_templates() -> Iterable[Template]:  # type: ignore[empty-body]
    """Return the manifests that ``runner new`` may start from. Fires when the plugin is loaded."""


@hookspec
def runner_demos() -> Iterable[Demo]:  # type: ignore[empty-body]
    """Return the manifests that ``runner demo`` may run. Fires when the plugin is loaded."""


@hookspec
def runner_run_started(run: Run) -> None:
    """Fires when the run directory is locked and the plan is made, before the first worker starts."""


@hookspec
def runner_stage_started(run: Run, stage: str) -> None:
    """Fires before a stage's worker starts; not for stages with nothing to do."""


@hookspec
def runner_item_finished(run: Run, item: ItemResult) -> None:
    """Fires when an item is done or failed at a stage, after its hand-off is on disk."""


@hookspec
def runner_stage_finished(run: Run, result: StageResult) -> None:
    """Fires when a stage's worker has exited."""


@hookspec
def runner_run_finished(run: Run, summary: Summary) -> None:
    """Fires last, also after a failure or an interruption."""
