"""Parameters from ``[with]``, ``[stage.with]`` and items, checked by the plugin's model of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.files.hashes import HashError
from runner.manifest import params
from runner.manifest.batch_item import BatchItem, at
from runner.manifest.explain import explain
from runner.manifest.input_files import file_parameters
from runner.manifest.params import RawParams
from runner.manifest.problems import Position, Problems
from runner.manifest.record import moved

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.manifest.load import Manifest
    from runner.pipeline.stage import PipelineStage


@dataclass(frozen=True)
class StageParams:
    """An item's parameters at one stage: as given, and in canonical form, which keys are made from."""

    raw: RawParams = field(default_factory=RawParams)
    canonical: Mapping[str, Any] = field(default_factory=dict)
    as_written: Mapping[str, Any] = field(default_factory=dict)
    """Paths of files, and strings that the plugin's model would not read back as the same."""

    @property
    def shown(self) -> Mapping[str, Any]:
        """The canonical form, with the paths of files, as they are written, in place of their contents."""
        return {**self.canonical, **{name: self.as_written[name] for name in self.raw.folders}}


def raw_params(stage: PipelineStage, stage_params: StageParams) -> RawParams:
    """An item's parameters at a stage as given, with "text" for each one that is wired to an earlier stage.

    The real text is known only when the stage runs.
    """
    if stage.params is None or not stage.wires:
        return stage_params.raw
    texts = {name: "text" for name in params.names_of(stage.params) if name in stage.wires}
    return replace(stage_params.raw, values={**stage_params.raw.values, **texts})


def instance(stage: PipelineStage, stage_params: StageParams, changed: Mapping[str, Any]) -> Any:
    """An item's parameters at a stage as the plugin's model; None where the stage has none.

    ``changed`` parameters take the place of the item's, unless the model refuses them.
    """
    if stage.params is None:
        return None
    raw = raw_params(stage, stage_params)
    for values in ({**raw.values, **changed}, raw.values):
        with contextlib.suppress(ValidationError):
            return params.validate(stage.params, replace(raw, values=values))
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
        self._files = file_parameters(stage.params)
        self._model = params.open_to_anything(stage.params, self._wired) if stage.params else None

    def check_with(self) -> None:
        """Check each value for all items by itself, since items may replace any of them."""
        no_item = BatchItem({}, at(Position("")))
        self._check(self._raw({}, no_item), no_item, partial=True)

    def bind(self, item: BatchItem) -> StageParams:
        """The item's parameters at this stage; errors are added to the problems."""
        own = {name: value for name, value in item.fields.items() if name in self._names}
        raw = self._raw(own, item)
        canonical = self._check(raw, item)
        files = {
            name: _moved(raw.values[name], raw.folders[name], self._manifest.folder.absolute())
            for name in raw.folders
        }
        changed = {
            name: value
            for name, value in raw.values.items()
            if isinstance(value, str) and name not in files and canonical.get(name) != value
        }
        stable = not changed or self._is_stable(canonical, raw)
        return StageParams(raw, canonical, files if stable else {**changed, **files})

    def _raw(self, own: Mapping[str, Any], item: BatchItem) -> RawParams:
        """The values of the manifest and the item, and the folders where paths among them start."""
        values = {n: v for n, v in {**self._with, **own}.items() if n not in self._wired}
        manifest = self._manifest.folder.absolute()
        folders = {
            n: (item.folder or manifest).absolute() if n in own else manifest
            for n in self._files
            if n in values
        }
        return RawParams(values, item.text_only, folders)

    def _is_stable(self, canonical: Mapping[str, Any], raw: RawParams) -> bool:
        """Whether reading the canonical form again, with values as strings, gives the same."""
        values = {**canonical, **{name: raw.values[name] for name in raw.folders}}
        try:
            return self._canonical(replace(raw, values=values, text_only=True)) == canonical
        except (ValidationError, HashError):
            return False

    def _canonical(self, raw: RawParams) -> dict[str, Any]:
        """The canonical form.

        Raises:
            pydantic.ValidationError: the model refuses the values.
            HashError: a file cannot be read.

        """
        assert self._model is not None  # noqa: S101 - not called for stages without parameters
        standing_in = replace(raw, values={**raw.values, **dict.fromkeys(self._wired, "text")})
        found = params.validate(self._model, standing_in)
        shown = {**params.canonical(found), **params.canonical_files(found)}
        return {name: value for name, value in shown.items() if name not in self._wired}

    def _check(self, raw: RawParams, item: BatchItem, *, partial: bool = False) -> dict[str, Any]:
        if self._model is None:
            return {}
        try:
            return self._canonical(raw)
        except ValidationError as error:
            self._report(error, item, partial=partial)
        except HashError as error:
            self._problems.add(item.where(None), str(error))
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
            self._problems.add(self.where(name, item), ", or ".join(found))

    def where(self, name: str, item: BatchItem) -> Position:
        """The place where a parameter is set for an item; that of the item, if none is."""
        if name in item.fields:
            return item.where(name)
        if name in self._with:
            return self._manifest.where(*self._stage.path_of(name))
        return item.where(None)


def _moved(value: Any, old: Path, new: Path) -> Any:
    """Paths relative to one folder as relative to another."""
    if isinstance(value, str):
        return value if old == new else moved(value, old, new)
    if isinstance(value, list):
        return [_moved(one, old, new) for one in value]
    return value
