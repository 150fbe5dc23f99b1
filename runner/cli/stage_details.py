"""A stage as its plugin declares it, as JSON values: parameters, inputs, outputs and components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.api import File, Tensor
from runner.errors import PluginError
from runner.pipeline.for_model import depends_on_model, params_model

if TYPE_CHECKING:
    from runner.api import Component, Output, Stage

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "object": "table",
}
_FILES = {"file-path": "file", "path": "file or folder"}
"""Of a string in JSON Schema, by its format."""
_REFERENCE = "#/$defs/"
_BOUNDS = {
    "minimum": "minimum",
    "exclusiveMinimum": "more_than",
    "maximum": "maximum",
    "exclusiveMaximum": "less_than",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
"""The names of bounds in JSON Schema, and in our JSON."""


def stage_details(stage: Stage) -> dict[str, Any]:
    """All that a stage declares. ``parameters`` is None if their model cannot be imported or described.

    With ``depends_on_model``, its components and parameters are known only for a model.
    """
    depends = isinstance(stage.components, str)
    try:
        parameters: list[dict[str, Any]] | None = parameters_of(stage)
        depends = depends_on_model(stage)
    except PluginError:
        parameters = None
    components = () if isinstance(stage.components, str) else stage.components
    return {
        "name": stage.name,
        "version": stage.version,
        "summary": stage.summary,
        "inputs": [i.name for i in stage.inputs],
        "outputs": [o.name for o in stage.outputs],
        "components": [c.name for c in components],
        "depends_on_model": depends,
        "parameters": parameters,
        "takes": [_output(i) for i in stage.inputs],
        "leaves": [_output(o) for o in stage.outputs],
        "loads": [_component(c) for c in components],
        "memory_formula": bool(stage.memory),
    }


def parameters_of(stage: Stage) -> list[dict[str, Any]]:
    """The parameters that ``[stage.with]`` and items may set, with type, bounds, default and description.

    Empty if they depend on the model.

    Raises:
        PluginError: the model of the parameters cannot be imported or described.

    """
    model = params_model(stage, None)
    if model is None:
        return []
    try:
        schema = model.model_json_schema(by_alias=True)
    except Exception as error:  # types of the plugin's own, without a schema
        raise PluginError(f"the parameters of {stage.name} cannot be described: {error}") from error
    required, definitions = schema.get("required", ()), schema.get("$defs", {})
    return [
        {"name": name, **_parameter(one, definitions, required=name in required)}
        for name, one in schema.get("properties", {}).items()
    ]


def _parameter(
    schema: dict[str, Any], definitions: dict[str, dict[str, Any]], *, required: bool
) -> dict[str, Any]:
    members = [definitions.get(one.get("$ref", "")[len(_REFERENCE) :], one) for one in _members(schema)]
    bounds = {ours: one[theirs] for one in members for theirs, ours in _BOUNDS.items() if theirs in one}
    return {
        "type": " or ".join(dict.fromkeys(_type(one) for one in members)) or "anything",
        "required": required,
        "default": schema.get("default"),
        **bounds,
        "description": schema.get("description", ""),
    }


def _members(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The types that a value may have, without null, which stands for not set."""
    return [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]


def _type(schema: dict[str, Any]) -> str:
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if choices:
        return " or ".join(repr(choice) if isinstance(choice, str) else str(choice) for choice in choices)
    if "$ref" in schema:
        return "table"
    if schema.get("format") in _FILES:
        return _FILES[schema["format"]]
    kind = _TYPES.get(schema.get("type", ""), "anything")
    return f"list of {_type(schema['items'])}" if kind == "list" and schema.get("items") else kind


def _output(declared: Output) -> dict[str, Any]:
    details: dict[str, Any] = {"name": declared.name, "kind": type(declared).__name__.lower()}
    if isinstance(declared, Tensor):
        details |= {"dtype": declared.dtype, "shape": list(declared.shape) if declared.shape else None}
    elif isinstance(declared, File):
        details["suffix"] = declared.suffix
    return {**details, "optional": declared.optional}


def _component(component: Component) -> dict[str, Any]:
    return {
        "name": component.name,
        "class": component.cls,
        "folder": component.path,
        "config_only": component.config_only,
        "blocks": list(component.blocks),
        "files": list(component.files),
    }
