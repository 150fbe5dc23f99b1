"""Dataclasses as JSON, and back: each field is checked against its type."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from runner.events import json_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def to_json(record: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values."""
    return {part.name: _value(getattr(record, part.name)) for part in fields(record)}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(one) for one in value]
    return to_json(value) if is_dataclass(value) else value


@cache
def reader(kind: Any) -> Callable[[Any], Any]:
    """A function that reads a JSON value as a type: a dataclass, a list of them, or what events have.

    It raises TypeError, ValueError or OverflowError for a value of another type, and for unknown fields.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return partial(_read, kind, {part.name: reader(hints[part.name]) for part in fields(kind)})
    if get_origin(kind) is list and is_dataclass(get_args(kind)[0]):
        return partial(_read_list, reader(get_args(kind)[0]))
    if kind is bool:
        return _boolean
    return json_values.reader(kind)


def _read(kind: type[Any], readers: Mapping[str, Callable[[Any], Any]], value: Any) -> Any:
    if not isinstance(value, dict) or value.keys() - readers.keys():
        raise TypeError(f"no {kind.__name__}")
    return kind(**{name: read(value[name]) for name, read in readers.items() if name in value})


def _read_list(read: Callable[[Any], Any], value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return [read(one) for one in value]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("no boolean")
    return value
