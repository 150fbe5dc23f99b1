"""Parameters of a stage: validated by the plugin's model, told apart by a canonical form.

The supervisor validates them to tell errors early and to make keys; the worker validates the same values
again, as they were given, so that a model's own validators run once on what the user wrote.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

EXACT = 2**53
"""Floats below it tell whole numbers apart."""


@dataclass(frozen=True)
class RawParams:
    """What a manifest and an item set for one stage.

    ``text_only``: the values are from a format that knows nothing but strings, so "28" may be a number.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    text_only: bool = False


def names_of(model: type[BaseModel]) -> list[str]:
    """The keys that users write: a field's alias where it has one."""
    return [field.alias or name for name, field in model.model_fields.items()]


def validate(model: type[BaseModel], given: RawParams) -> BaseModel:
    """An instance of the plugin's model.

    Raises:
        pydantic.ValidationError: the values are not what the model takes.

    """
    if given.text_only:
        return model.model_validate(given.values)
    try:
        text = json.dumps(whole_numbers(given.values))
    except (TypeError, ValueError):  # dates, which TOML has and JSON has not
        return model.model_validate(given.values)
    # strict as TOML and JSON are about types; as JSON, so that enumerations and paths are strings
    return model.model_validate_json(text, strict=True)


def whole_numbers(value: Any) -> Any:
    """The value with ``7`` for each ``7.0`` in it: JSON has one kind of number, and a float takes either."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    if isinstance(value, dict):
        return {name: whole_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole_numbers(one) for one in value]
    return value


def open_to_anything(model: type[BaseModel], names: Sequence[str]) -> type[BaseModel]:
    """The model, with parameters of these names that take anything: what they will be is not known yet."""
    if not names:
        return model
    from pydantic import create_model
    from pydantic.fields import FieldInfo

    fields = {n: f for n, f in model.model_fields.items() if (f.alias or n) in names}
    loosened: dict[str, Any] = {n: (Any, FieldInfo(alias=f.alias, default="text")) for n, f in fields.items()}
    loose: type[BaseModel] = create_model(model.__name__, __base__=model, **loosened)
    return loose


def canonical(instance: BaseModel) -> dict[str, Any]:
    """All parameters as JSON values, defaults filled in; equal parameters give equal JSON."""
    shown = {name: _ordered(value) for name, value in instance.model_dump(by_alias=True).items()}
    for name, field_ in type(instance).model_fields.items():
        if field_.exclude:  # from what is shown; the numbers that are made depend on it all the same
            shown[field_.alias or name] = _ordered(getattr(instance, name))
    return shown


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        named = {_ordered(name): _ordered(one) for name, one in value.items()}
        return {name: named[name] for name in sorted(named, key=json.dumps)}
    if isinstance(value, list | tuple):
        return [_ordered(one) for one in value]
    if isinstance(value, set | frozenset):  # its order changes from process to process
        return sorted((_ordered(one) for one in value), key=json.dumps)
    if hasattr(value, "get_secret_value"):  # told apart, and not told
        return f"sha256:{hashlib.sha256(repr(value.get_secret_value()).encode()).hexdigest()}"
    return to_jsonable_python(value)
