"""The mildest changes, stage by stage, that make a manifest fit the hardware in its budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import BudgetError
from runner.manifest.problems import ManifestError
from runner.pipeline.binding import bind
from runner.plan.choose import plan_stage
from runner.plan.limits import limits_alone
from runner.tailor.changes import Change, apply, fallback_order
from runner.work.models import resolve_models

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from runner.machine.describe import Machine
    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.plan.stage_plan import Faster, StagePlan
    from runner.plugins import Plugins

Shapes = list[list["ComponentShapes"]]


@dataclass(frozen=True)
class Fitted:
    """A manifest that fits, the plan of each stage, and the changes that were made."""

    manifest: Manifest
    plans: tuple[StagePlan, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Attempt:
    """A stage with some changes."""

    changes: Mapping[Path, Change]
    plan: StagePlan | None
    misfit: str
    """Why it does not fit; empty if it does."""

    @property
    def fits(self) -> bool:
        return not self.misfit and self.plan is not None

    @property
    def is_known(self) -> bool:
        """Whether there is a plan for it, with the activations if the plugin knows or measures them."""
        return self.plan is not None and (self.plan.need.has_formula or not self.plan.stage.spec.memory)


def shapes_of(pipeline: Pipeline) -> Shapes:
    """The shapes of every stage's components. Of a hub model that is not here, only headers are fetched.

    Raises:
        ModelError: a model is missing or damaged, or cannot be reached.

    """
    resolved = resolve_models(pipeline)
    return [resolved.shapes(stage) for stage in pipeline.stages]


def fit(pipeline: Pipeline, shapes: Shapes, machine: Machine | None = None) -> Fitted:
    """Change what does not fit the manifest's own budgets, stage by stage.

    CPUs are assumed to be as fast as that of ``machine``, by default this one.

    Raises:
        BudgetError: stages do not fit with any change; the message has the arithmetic of each.
        PluginError: an activation formula fails.

    """
    changes: list[Change] = []
    misfits = []
    for n in range(len(pipeline.stages)):
        attempt = _StageFit(pipeline, n, shapes[n], machine).mildest()
        if not attempt.fits:
            misfits.append(_message(attempt))
        elif attempt.changes:  # a later stage's formula may see an earlier one's parameters
            pipeline = _changed(pipeline, attempt.changes.values())
            changes += attempt.changes.values()
    if misfits:
        raise BudgetError("\n".join(misfits))
    return Fitted(pipeline.manifest, _plans(pipeline, shapes, machine), tuple(changes))


def in_faster_dtypes(
    fitted: Fitted,
    shapes: Shapes,
    plugins: Plugins,
    stages: Container[str] | None = None,
    machine: Machine | None = None,
) -> Fitted:
    """The same with float32 in the stages (all, or those named) where it is faster and fits as well."""
    changes = [
        _to_float32(plan, plan.faster)
        for plan in fitted.plans
        if plan.faster and (stages is None or plan.stage.name in stages)
    ]
    if not changes:
        return fitted
    pipeline = bind(apply(fitted.manifest, changes), plugins)
    return Fitted(pipeline.manifest, _plans(pipeline, shapes, machine), (*fitted.changes, *changes))


def _to_float32(plan: StagePlan, faster: Faster) -> Change:
    path = ("stage", plan.stage.index, "dtype")
    why = f"computes slower on this CPU (float32 takes {faster.time})"
    return Change(path, plan.need.dtype, "float32", f"{faster.memory}, other low bits", plan.stage.name, why)


def try_plan(
    pipeline: Pipeline, n: int, shapes: Sequence[ComponentShapes], machine: Machine | None = None
) -> tuple[StagePlan | None, str]:
    """A stage's plan for its budget alone, and why it does not fit (empty if it does).

    The plan is None if the device does not have the placement that the manifest sets.
    """
    stage = pipeline.stages[n]
    try:
        plan = plan_stage(pipeline, stage, shapes, limits_alone(stage.budget, machine))
    except BudgetError as error:
        return None, str(error)
    return plan, plan.misfit


def _plans(pipeline: Pipeline, shapes: Shapes, machine: Machine | None) -> tuple[StagePlan, ...]:
    tries = (try_plan(pipeline, n, shapes[n], machine) for n in range(len(pipeline.stages)))
    return tuple(plan for plan, _ in tries if plan is not None)


def _changed(pipeline: Pipeline, changes: Iterable[Change]) -> Pipeline:
    return bind(apply(pipeline.manifest, changes), pipeline.plugins)


def _message(attempt: _Attempt) -> str:
    if not attempt.changes:
        return attempt.misfit
    made = ", ".join(f"{c.key} {'removed' if c.new is None else c.new}" for c in attempt.changes.values())
    return f"{attempt.misfit}\n  (lowered already: {made})"


class _StageFit:
    """The search for the mildest changes that make one stage fit."""

    def __init__(
        self, pipeline: Pipeline, n: int, shapes: Sequence[ComponentShapes], machine: Machine | None
    ) -> None:
        self._pipeline = pipeline
        self._n = n
        self._shapes = shapes
        self._machine = machine
        self._steps = list(fallback_order(pipeline.stages[n]))

    def mildest(self) -> _Attempt:
        """The first changes that fit, without needless ones; if nothing fits, all changes."""
        attempt = self._try({})
        for step in self._steps:
            if attempt.fits:
                break
            tried = self._try({**attempt.changes, step.path: step})
            attempt = tried if tried.is_known else attempt
        return self._without_needless(attempt) if attempt.fits else attempt

    def _without_needless(self, attempt: _Attempt) -> _Attempt:
        """Undo changes that later ones made needless, or use milder values if those are enough."""
        for path, made in attempt.changes.items():
            options = [step for step in self._steps if step.path == path]
            milder = [{**attempt.changes, path: step} for step in options[: options.index(made)]]
            without = {p: change for p, change in attempt.changes.items() if p != path}
            tries = (self._try(changes) for changes in (without, *milder))
            attempt = next((tried for tried in tries if tried.fits and tried.is_known), attempt)
        return attempt

    def _try(self, changes: Mapping[Path, Change]) -> _Attempt:
        try:
            pipeline = _changed(self._pipeline, changes.values()) if changes else self._pipeline
            return _Attempt(changes, *try_plan(pipeline, self._n, self._shapes, self._machine))
        except ManifestError as error:
            return _Attempt(changes, None, str(error))
