"""Parameters from ``[with]``, ``[stage.with]`` and items, checked by the plugin's model of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.manifest import params
from runner.manifest.batch_item import BatchItem, at
from runner.manifest.explain import explain
from runner.manifest.params import RawParams
from runner.manifest.problems import Position, Problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.manifest.load import Manifest
    from runner.pipeline.stage import PipelineStage


@dataclass(frozen=True)
class StageParams:
    """An item's parameters at one stage: as given, and in canonical form, which keys are made from."""

    raw: RawParams = field(default_factory=RawParams)
    canonical: Mapping[str, Any] = field(default_factory=dict)
    as_written: Mapping[str, str] = field(default_factory=dict)
    """Strings that the plugin's model converted to values that it would not read back as the same."""


def raw_params(stage: PipelineStage, stage_params: StageParams) -> RawParams:
    """An item's parameters at a stage as given, with "text" for each one that is wired to an earlier stage.

    The real text is known only when the stage runs.
    """
    if stage.params is None or not stage.wires:
        return stage_params.raw
    texts = {name: "text" for name in params.names_of(stage.params) if name in stage.wires}
    return RawParams({**stage_params.raw.values, **texts}, stage_params.raw.text_only)


def instance(stage: PipelineStage, stage_params: StageParams, changed: Mapping[str, Any]) -> Any:
    """An item's parameters at a stage as the plugin's model; None where the stage has none.

    ``changed`` parameters take the place of the item's, unless the model refuses them.
    """
    if stage.params is None:
        return None
    raw = raw_params(stage, stage_params)
    for values in ({**raw.values, **changed}, raw.values):
        with contextlib.suppress(ValidationError):
            return params.validate(stage.params, RawParams(values, raw.text_only))
    return stage.params.model_construct(**raw.values)  # the model refuses the word "text"


class ParamsBinder:
    """Binds items to the parameters of one stage."""

    def __init__(self, manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
        self._manifest = manifest
        self._stage = stage
        self._problems = problems
        self._names = params.names_of(stage.params) if stage.params else []
        self._with = stage.given
        # a wired text is known when the stage runs; if it is optional, the item's own value may count
        wired = [name for name in self._names if name in stage.wires]
        self._wired = [name for name in wired if not stage.wires[name].optional]
        self._model = params.open_to_anything(stage.params, self._wired) if stage.params else None

    def check_with(self) -> None:
        """Check each value for all items by itself, since items may replace any of them."""
        no_item = BatchItem({}, at(Position("")))
        self._check(RawParams(self._with), no_item, partial=True)

    def bind(self, item: BatchItem) -> StageParams:
        """The item's parameters at this stage; errors are added to the problems."""
        own = {name: value for name, value in item.fields.items() if name in self._names}
        values = {**self._with, **own}
        raw = RawParams({n: v for n, v in values.items() if n not in self._wired}, item.text_only)
        canonical = self._check(raw, item)
        changed = {n: v for n, v in raw.values.items() if isinstance(v, str) and canonical.get(n) != v}
        return StageParams(raw, canonical, changed if changed and not self._is_stable(canonical) else {})

    def _is_stable(self, canonical: Mapping[str, Any]) -> bool:
        """Whether reading the canonical form again, with values as strings, gives the same."""
        try:
            return self._canonical(RawParams(canonical, text_only=True)) == canonical
        except ValidationError:
            return False

    def _canonical(self, raw: RawParams) -> dict[str, Any]:
        """The canonical form.

        Raises:
            pydantic.ValidationError: the model refuses the values.

        """
        assert self._model is not None  # noqa: S101 - not called for stages without parameters
        standing_in = RawParams({**raw.values, **dict.fromkeys(self._wired, "text")}, raw.text_only)
        shown = params.canonical(params.validate(self._model, standing_in))
        return {name: value for name, value in shown.items() if name not in self._wired}

    def _check(self, raw: RawParams, item: BatchItem, *, partial: bool = False) -> dict[str, Any]:
        if self._model is None:
            return {}
        try:
            return self._canonical(raw)
        except ValidationError as error:
            self._report(error, item, partial=partial)
            return dict(raw.values)

    def _report(self, error: ValidationError, item: BatchItem, *, partial: bool) -> None:
        """Add one problem per field; pydantic has an error for each type of a union."""
        messages: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0]) if detail["loc"] else ""
            if name in self._wired or (partial and name not in self._with):
                continue
            message = explain(detail, name=name)
            if detail["type"] == "missing" and len(detail["loc"]) == 1:
                message = f"{message}: {self._stage.spec.name} needs it"
            messages.setdefault(name, []).append(message)
        for name, found in messages.items():
            self._problems.add(self._where(name, item), ", or ".join(found))

    def _where(self, name: str, item: BatchItem) -> Position:
        if name in item.fields:
            return item.where(name)
        if name in self._with:
            return self._manifest.where(*self._stage.path_of(name))
        return item.where(None)
