"""A stage's parameter model: what is wrong with it, and values made up for what it requires."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from runner.errors import PluginError
from runner.manifest.params import RawParams, canonical, names_of, validate
from runner.plugin_check.checks import BROKEN, OK, PARAMS, WARN, Verdict
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.api import Stage


class NoExampleError(Exception):
    """A value that nobody but the author can give."""


def check_params(stage: Stage) -> Verdict:
    """Look at the stage's parameter model."""
    if not stage.params:
        return Verdict(stage.name, PARAMS, OK, "it has none")
    try:
        model = load_object(stage.params)
    except PluginError as error:
        return Verdict(stage.name, PARAMS, BROKEN, str(error), "name it as 'package.module:Model'")
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return Verdict(stage.name, PARAMS, BROKEN, f"'{stage.params}' is no pydantic model")
    for wrong, advice in _faults(model):
        return Verdict(stage.name, PARAMS, BROKEN, wrong, advice)
    bare = [name for name, field in model.model_fields.items() if not field.description]
    if bare:
        told = f"no description: {', '.join(bare)}"
        return Verdict(stage.name, PARAMS, WARN, told, "give each Field a description: users read it")
    return Verdict(stage.name, PARAMS, OK, ", ".join(names_of(model)))


def _faults(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    if model.model_config.get("extra") != "forbid":
        yield "it takes unknown keys in silence", 'model_config = ConfigDict(extra="forbid") tells of typos'
    try:
        model.model_json_schema()
    except Exception as error:
        yield f"it has no JSON schema: {error}", "use types that pydantic can describe"
    try:
        values = synthetic(model, {}, 0)
        given = validate(model, RawParams(values))
    except (NoExampleError, ValidationError):
        return  # whether an instance is sound is seen when one is given
    try:
        again = pickle.loads(pickle.dumps(given))  # noqa: S301 - our own bytes
        if again != given:
            yield "an instance is another one after pickling", "leave private state out of it"
    except Exception as error:
        yield f"an instance cannot be pickled: {error}", "keep to plain values in parameters"
    try:
        told = canonical(given)
        if canonical(validate(model, RawParams(json.loads(json.dumps(told))))) != told:
            yield "its values change when they are given again", "make its validators idempotent"
    except Exception as error:
        yield f"its own defaults are refused: {_first_line(error)}", "let defaults pass the fields' checks"


def synthetic(model: type[BaseModel], given: Mapping[str, Any], item: int) -> dict[str, Any]:
    """``given`` with values for what is required besides; the seed is the item's own.

    Raises:
        NoExampleError: a required value is of a kind that cannot be made up.

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
    """The field's schema, one that is referred to or the first of several."""
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
    raise NoExampleError(f"'{name}' is required, and a value for it cannot be made up")


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).partition("\n")[0]
