"""Checks a stage's parameter model, and generates values for what it requires."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from runner.declarations import DeclarationError, check_suffix_parameters
from runner.errors import PluginError
from runner.manifest.input_files import file_parameters
from runner.manifest.params import RawParams, canonical, names_of, validate
from runner.pipeline.for_model import params_model
from runner.plugin_check.checks import BROKEN, OK, PARAMS, WARN, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.api import Stage


class NoExampleError(Exception):
    """Something that only the plugin's author can provide; the message says what, ``advice`` how."""

    def __init__(self, message: str, advice: str = "give --manifest M with two items") -> None:
        super().__init__(message)
        self.advice = advice


def check_params(stage: Stage) -> Verdict:
    """Check the stage's parameter model."""
    if not stage.params:
        return Verdict(stage.name, PARAMS, OK, "it has none")
    try:
        model = params_model(stage, None)
    except PluginError as error:
        return Verdict(stage.name, PARAMS, BROKEN, str(error), "name it as 'package.module:Model'")
    if model is None:
        return Verdict(stage.name, PARAMS, OK, "they depend on the model")
    try:
        check_suffix_parameters(stage, names_of(model))
        file_parameters(model)
    except (DeclarationError, PluginError) as error:
        return Verdict(stage.name, PARAMS, BROKEN, str(error))
    for fault, advice in _faults(model):
        return Verdict(stage.name, PARAMS, BROKEN, fault, advice)
    undescribed = [name for name, field in model.model_fields.items() if not field.description]
    if undescribed:
        message = f"no description: {', '.join(undescribed)}"
        return Verdict(stage.name, PARAMS, WARN, message, "give each Field a description: users read it")
    return Verdict(stage.name, PARAMS, OK, ", ".join(names_of(model)))


def _faults(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    if model.model_config.get("extra") != "forbid":
        yield "it ignores unknown keys", 'set model_config = ConfigDict(extra="forbid"), which reports typos'
    try:
        model.model_json_schema()
    except Exception as error:
        yield f"it has no JSON schema: {error}", "use types that pydantic can describe"
    try:
        params = validate(model, RawParams(synthetic_params(model, {}, 0)))
    except (NoExampleError, ValidationError):
        return  # no instance to check
    try:
        if pickle.loads(pickle.dumps(params)) != params:  # noqa: S301 - our own bytes
            yield "an instance changes when it is pickled", "leave private state out of it"
    except Exception as error:
        yield f"an instance cannot be pickled: {error}", "use plain values for parameters"
    try:
        values = canonical(params)
        if canonical(validate(model, RawParams(json.loads(json.dumps(values))))) != values:
            yield "its values change when they are validated again", "make its validators idempotent"
    except Exception as error:
        yield (
            f"its own defaults are refused: {_first_line(error)}",
            "make the defaults pass the fields' checks",
        )


def synthetic_params(model: type[BaseModel], given: Mapping[str, Any], item: int) -> dict[str, Any]:
    """``given``, with generated values for other required fields and a seed of the item's own.

    Raises:
        NoExampleError: no value can be generated for a required field.

    """
    schema = model.model_json_schema()
    values = dict(given)
    for name in schema.get("required", ()):
        if name not in values:
            values[name] = _value(name, _resolved(schema["properties"][name], schema), item)
    if "seed" in schema.get("properties", {}) and "seed" not in given:
        values["seed"] = item + 1
    return values


def _resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The field's schema, with references followed; of alternatives, the first."""
    while True:
        if "$ref" in field:
            field = schema["$defs"][field["$ref"].rpartition("/")[2]]
        elif "anyOf" in field:
            field = field["anyOf"][0]
        else:
            return field


def _value(name: str, field: dict[str, Any], item: int) -> Any:
    if "enum" in field:
        return field["enum"][item % len(field["enum"])]
    if "const" in field:
        return field["const"]
    kind = field.get("type")
    if kind == "string" and "pattern" not in field and "format" not in field:
        return f"{('one', 'two')[item % 2]} {name}"
    if kind in ("integer", "number"):
        least = field.get("minimum", field.get("exclusiveMinimum", 0))
        step = field.get("multipleOf", 1)
        return (least // step + 1) * step
    if kind == "boolean":
        return False
    if field.get("format") in ("file-path", "path"):
        raise NoExampleError(
            f"'{name}' is a file, which only you can give",
            "give --manifest M with two items that name one, or its path among the params of a StageContract",
        )
    raise NoExampleError(f"'{name}' is required, and no value for it can be generated")


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).partition("\n")[0]
