"""The base class of events, and their encoder and decoder.

Workers send events to the supervisor, which passes them to the display, the journal, the report and
``run --json``. Encoded, each is a JSON object: ``{"event": KIND, "time": TIME, FIELDS}``. Kinds and fields
may be added but not renamed: :func:`decode` ignores unknown ones, and gives absent fields their defaults.
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
"""The kind of a warning that is only information; it is shown once per run."""
LEFT_OUT = {"left_out": True}
"""Metadata of a field that is left out of the JSON object if it has its default value."""
_KINDS: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; ``time`` is set when an event is passed to the listeners of a run."""

    event: ClassVar[str]
    """The kind, as in JSON."""
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
    """The event of a JSON value; None if it is not an event, of an unknown kind, or has invalid fields."""
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
    """The converters of a kind's fields, without ``time``, by name."""
    hints = get_type_hints(_KINDS[kind])
    return {part.name: json_values.reader(hints[part.name]) for part in _fields(kind)}
