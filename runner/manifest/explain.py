"""Turns pydantic's validation errors into messages about a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from runner.manifest.params import names_of
from runner.manifest.problems import did_you_mean
from runner.manifest.schema import PATTERNS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MESSAGES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}


def explain(error: ErrorDetails, name: str | None = None) -> str:
    """A one-sentence message; ``name`` replaces the field name taken from the error's location."""
    kind, place = error["type"], error["loc"]
    if name is not None and len(place) > 1 and kind in ("extra_forbidden", "missing"):
        what = {"extra_forbidden": "unknown key '{}'", "missing": "'{}' is missing"}[kind]
        return f"{what.format(place[-1])} in '{name}'"  # a key of a parameter that is a table
    name = named(place) if name is None else name
    if kind == "missing":
        return f"'{name}' is missing"
    given = error["input"]
    if kind == "list_type" and isinstance(given, dict):
        return f"'{name}' must be a list of tables: write [[{name}]]"
    if kind == "string_pattern_mismatch" and (words := PATTERNS.get(error["ctx"]["pattern"])):
        return f"'{name}' must be {words}, not {shown(given)}"
    if kind in _MESSAGES:
        return f"'{name}' {_MESSAGES[kind]}, not {shown(given)}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "must be").replace("Input should", "must")
    message = message[:1].lower() + message[1:]
    if kind == "value_error":
        return f"'{name}': {message}" if name else message
    hint = ""
    if kind == "literal_error" and isinstance(given, str):
        expected = str(error.get("ctx", {}).get("expected", ""))
        hint = did_you_mean(given, [w.strip("'") for w in expected.replace(" or ", ", ").split(", ")])
    return f"'{name}': {message}, not {shown(given)}{hint}" if name else message


def keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the table at ``location``."""
    current: Any = model
    for part in location:
        if isinstance(part, int) or not _is_model(current):
            continue
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        field = fields.get(part)
        current = _model_within(field.annotation) if field else None
    if not _is_model(current):
        return []
    return names_of(current)


def named(location: tuple[int | str, ...]) -> str:
    """The last name of a location, ``steps``; with its indices for a value in a list, ``seeds[2]``."""
    names = [n for n, part in enumerate(location) if isinstance(part, str)]
    if not names:
        return ""
    indices = "".join(f"[{part}]" for part in location[names[-1] + 1 :])
    return f"{location[names[-1]]}{indices}"


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _model_within(annotation: Any) -> Any:
    """The model class in ``Model``, ``Model | None`` or ``list[Model]``; None if there is none."""
    if _is_model(annotation):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_within(arg))), None)


def shown(value: Any) -> str:
    """A value as messages quote it: at most 60 characters."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
