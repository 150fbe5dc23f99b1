"""The base of all events, and their one encoder and decoder.

Workers send them to the supervisor; the supervisor hands them to the display, the journal, the report and
``run --json``. On the wire and in files each is a JSON object, ``{"event": ..., "time": ..., fields}``. Kinds
and fields may be added and none is renamed: :func:`decode` passes over what it does not know, and gives a
field that is absent its default.
"""

from __future__ import annotations

import functools
from dataclasses import Field, dataclass, fields
from datetime import datetime  # noqa: TC003 - the types of fields are read when it runs
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from runner.events import json_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOTE = "note"
"""The kind of a warning that is about no fault; it is shown once a run."""
LEFT_OUT = {"left_out": True}
"""Marks a field that the JSON object has only where it is not its default."""
_KINDS: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have: ``time`` is set when an event is handed to the listeners of a run."""

    event: ClassVar[str]
    """The name of the kind."""
    time: datetime | None = None

    def __init_subclass__(cls, kind: str) -> None:
        cls.event = kind
        _KINDS[kind] = cls


def encode(event: Event) -> dict[str, Any]:
    """The JSON object of an event."""
    record: dict[str, Any] = {"event": event.event}
    if event.time is not None:
        record["time"] = json_values.written(event.time)
    for part in _fields(event.event):
        value = getattr(event, part.name)
        if not (part.metadata and value == part.default):
            record[part.name] = value
    return record


def decode(record: Any) -> Event | None:
    """The event of a JSON value; None for what is no event, or of an unknown kind, or not as its kind is."""
    try:
        kind = record["event"]
        values = {name: read(record[name]) for name, read in _converters(kind).items() if name in record}
        return _KINDS[kind](**values, time=json_values.moment(record.get("time")))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


@functools.cache
def _fields(kind: str) -> tuple[Field[Any], ...]:
    return tuple(part for part in fields(_KINDS[kind]) if part.name != "time")


@functools.cache
def _converters(kind: str) -> Mapping[str, Callable[[Any], Any]]:
    """How each field of a kind is read, but its time."""
    hints = get_type_hints(_KINDS[kind])
    return {part.name: json_values.reader(hints[part.name]) for part in _fields(kind)}
