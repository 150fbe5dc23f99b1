"""Validates a stage's parameters with the plugin's pydantic model, and gives them a canonical form for keys.

The supervisor validates them to report errors early and to compute keys. The worker validates the original
values again, so that a model's validators run once on what the user wrote.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from runner.api.files import INPUT_FILES
from runner.files.hashes import HashError
from runner.manifest.input_files import InputFileFinder, content_of, file_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

EXACT = 2**53
"""Floats represent all whole numbers below this exactly."""


@dataclass(frozen=True)
class RawParams:
    """The values that a manifest and an item set for one stage, before validation.

    ``text_only``: they come from a format that has only strings, so "28" may be a number. ``folders`` are
    those that the relative paths of files start at, by parameter.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    text_only: bool = False
    folders: Mapping[str, Path] = field(default_factory=dict)


def names_of(model: type[BaseModel]) -> list[str]:
    """The keys that users write: a field's alias, else its name."""
    return [field.alias or name for name, field in model.model_fields.items()]


def validate(model: type[BaseModel], given: RawParams) -> BaseModel:
    """An instance of the plugin's model.

    Raises:
        pydantic.ValidationError: the model refuses the values.

    """
    context = _file_context(model, given.folders) if given.folders else None
    if given.text_only:
        return model.model_validate(given.values, context=context)
    try:
        text = json.dumps(whole_numbers(given.values))
    except (TypeError, ValueError):  # dates, which JSON lacks
        return model.model_validate(given.values, context=context)
    # strict about types, as TOML and JSON are; JSON mode accepts strings for enumerations and paths
    return model.model_validate_json(text, strict=True, context=context)


def _file_context(model: type[BaseModel], folders: Mapping[str, Path]) -> dict[str, InputFileFinder]:
    written = {name: field_.alias or name for name, field_ in model.model_fields.items()}
    return {INPUT_FILES: InputFileFinder({n: folders[key] for n, key in written.items() if key in folders})}


def whole_numbers(value: Any) -> Any:
    """The value with each ``7.0`` in it replaced by ``7``: JSON does not distinguish them."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    if isinstance(value, dict):
        return {name: whole_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole_numbers(one) for one in value]
    return value


def open_to_anything(model: type[BaseModel], names: Sequence[str]) -> type[BaseModel]:
    """The model with these parameters accepting any value, because their values are not known yet."""
    if not names:
        return model
    from pydantic import create_model
    from pydantic.fields import FieldInfo

    fields = {n: f for n, f in model.model_fields.items() if (f.alias or n) in names}
    loosened: dict[str, Any] = {n: (Any, FieldInfo(alias=f.alias, default="text")) for n, f in fields.items()}
    loose: type[BaseModel] = create_model(model.__name__, __base__=model, **loosened)
    return loose


def canonical(instance: BaseModel) -> dict[str, Any]:
    """All parameters as JSON values, including defaults; equal parameters give equal JSON. Files are paths.

    Those that stand for their contents are made by :func:`canonical_files`.
    """
    shown = {name: _ordered(value) for name, value in instance.model_dump(by_alias=True).items()}
    for name, field_ in type(instance).model_fields.items():
        if field_.exclude:  # from dumps, but results depend on it
            shown[field_.alias or name] = _ordered(getattr(instance, name))
    return shown


def canonical_files(instance: BaseModel) -> dict[str, Any]:
    """The parameters that are files, in canonical form: each file stands for its content.

    Raises:
        HashError: a file cannot be read; the message names the parameter.

    """
    names = file_parameters(type(instance))
    if not names:
        return {}
    written = {name: field_.alias or name for name, field_ in type(instance).model_fields.items()}
    found = {}
    for name, key in written.items():
        if key in names:
            try:
                found[key] = _contents(getattr(instance, name))
            except HashError as error:
                raise HashError(f"'{key}': {error}") from None
    return found


def _contents(value: Any) -> Any:
    if isinstance(value, Path):
        return content_of(value)
    if isinstance(value, dict):
        return {name: _contents(one) for name, one in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_contents(one) for one in value]
    return _ordered(value)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        named = {_ordered(name): _ordered(one) for name, one in value.items()}
        return {name: named[name] for name in sorted(named, key=json.dumps)}
    if isinstance(value, list | tuple):
        return [_ordered(one) for one in value]
    if isinstance(value, set | frozenset):  # their order changes from process to process
        return sorted((_ordered(one) for one in value), key=json.dumps)
    if hasattr(value, "get_secret_value"):  # a secret: compared by hash, never shown
        return f"sha256:{hashlib.sha256(repr(value.get_secret_value()).encode()).hexdigest()}"
    return to_jsonable_python(value)
