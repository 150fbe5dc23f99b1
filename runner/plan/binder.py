"""What ``[stage.with]`` and items set, held against the plugin's model of its parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.errors import ExitCode
from runner.manifest.explain import explain
from runner.manifest.items import BatchItem
from runner.manifest.problems import Position, Problems, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel

    from runner.manifest.load import Manifest
    from runner.plan.pipeline import PipelineStage


class Binder:
    """Binds items to the parameters of one stage."""

    def __init__(self, manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
        self._manifest = manifest
        self._stage = stage
        self._problems = problems
        self._fields = list(stage.params.model_fields) if stage.params else []
        self._given = {k: v for k, v in stage.table.with_.items() if k in self._fields}
        for name in stage.table.with_:
            if name not in self._fields:
                where = manifest.where("stage", stage.index, "with", name, key=True)
                override = str(where).startswith("--set")
                problems.add(
                    where,
                    f"{stage.spec.name} has no parameter '{name}'{did_you_mean(name, self._fields)}",
                    ExitCode.USAGE if override else ExitCode.MANIFEST,
                )

    def check_with(self) -> None:
        """Check ``with`` alone, where there is no item to check it with."""
        nobody = BatchItem("", {}, lambda _field: Position(""))
        self._check(self._given, nobody, partial=True)

    def params(self, item: BatchItem) -> dict[str, Any]:
        own = {name: value for name, value in item.fields.items() if name in self._fields}
        return self._check({**self._given, **own}, item)

    def _check(self, values: dict[str, Any], item: BatchItem, *, partial: bool = False) -> dict[str, Any]:
        model = self._stage.params
        if model is None:
            return {}
        # a wired text is known when the stage runs; until then any text stands for it
        wired = [name for name in self._fields if name in self._stage.wires]
        values = {**values, **dict.fromkeys(wired, "text")}
        try:
            checked = self._validate(model, values, item)
        except ValidationError as error:
            self._tell(error, item, partial=partial)
            return {}
        dumped = checked.model_dump(mode="json")
        return {name: value for name, value in dumped.items() if name not in wired}

    def _tell(self, error: ValidationError, item: BatchItem, *, partial: bool) -> None:
        """One problem a field; a field of several types has an error for each."""
        messages: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            field = str(detail["loc"][0]) if detail["loc"] else ""
            message = explain(detail, name=field)
            if detail["type"] == "missing":
                if partial:
                    continue
                message = f"{message}: {self._stage.spec.name} needs it"
            messages.setdefault(field, []).append(message)
        for field, found in messages.items():
            self._problems.add(self._where(field, item), ", or ".join(found))

    def _validate(self, model: type[BaseModel], values: dict[str, Any], item: BatchItem) -> BaseModel:
        """TOML and JSON know types, so a string is no number there; a CSV knows nothing but strings."""
        if item.text_only:
            return model.model_validate(values)
        try:
            text = json.dumps(values)
        except (TypeError, ValueError):  # dates, which TOML has and JSON has not
            return model.model_validate(values)
        return model.model_validate_json(text, strict=True)

    def _where(self, field: str, item: BatchItem) -> Position:
        if field in item.fields:
            return item.where(field)
        if field in self._given:
            return self._manifest.where("stage", self._stage.index, "with", field)
        return item.where(None)
