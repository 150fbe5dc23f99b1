"""What happens in a run: one typed record for each kind of event, and the one decoder of them all.

Workers send them to the supervisor; the supervisor hands them to the display, the journal, the report and
``run --json``. On the wire and in files each is a JSON object, ``{"event": ..., "time": ..., fields}``. Kinds
and fields may be added and none is renamed: :func:`decode` passes over what it does not know, and gives a
field that is absent its default.
"""

from __future__ import annotations

import functools
from dataclasses import Field, dataclass, field, fields
from datetime import datetime  # noqa: TC003 - likewise
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from runner import json_values
from runner.json_values import Bytes  # noqa: TC001 - the types of fields are read when it runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LEFT_OUT = {"left_out": True}
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


# of a run


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event, kind="run_started"):
    run: str
    manifest: str
    stages: list[str]
    items: int
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    content: str = ""
    """Digest of the manifest's file and of its file of items, before anything was overridden."""
    overridden: bool = False
    """Whether the command line changed what the manifest says (``--set``, ``--prompt``)."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event, kind="run_finished"):
    exit_code: int
    outputs: list[str]
    seconds: float
    error: str | None = field(default=None, metadata=_LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Waiting(Event, kind="waiting"):
    """Another run holds the run directory or the device."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class FetchProgress(Event, kind="fetch_progress"):
    """A model is being downloaded: bytes so far, and in all."""

    source: str
    done: int
    total: int


# of a stage


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event, kind="stage_started"):
    stage: str
    items: int
    placement: str
    predicted: Bytes
    distinct: int | None = None
    """Pieces of work: items of one key share theirs."""
    budget: Bytes = field(default_factory=dict)
    device: str = ""
    dtype: str = ""
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class StageReady(Event, kind="stage_ready"):
    """A worker has imported and loaded all that it needs, and begins with the items."""

    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Memory(Event, kind="memory"):
    """Bytes of RAM that the stage's worker holds now."""

    stage: str
    ram: int


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Event, kind="out_of_memory"):
    """A worker ran out of memory; ``next`` is the placement that the stage goes on with, if it does."""

    stage: str
    placement: str
    predicted: Bytes
    measured: Bytes
    error: str = ""
    next: str | None


@dataclass(frozen=True, kw_only=True)
class WorkerDied(Event, kind="worker_died"):
    """A worker crashed, hung or was killed, at these items; they are tried once more."""

    stage: str
    items: list[str]
    error: str


@dataclass(frozen=True, kw_only=True)
class StageFinished(Event, kind="stage_finished"):
    stage: str
    seconds: float
    done: int = 0
    cached: int
    failed: int = 0
    predicted: Bytes
    measured: Bytes
    streamed: dict[str, float] | None = None
    memory: list[tuple[float, int]] = field(default_factory=list)
    """RAM over time: seconds since the stage started, and bytes."""


# of an item; workers send these as they stand


@dataclass(frozen=True, kw_only=True)
class Progress(Event, kind="progress"):
    stage: str
    item: str
    step: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Resumed(Event, kind="resumed"):
    """An item goes on from what an interrupted attempt saved; ``seconds`` is what that attempt took."""

    stage: str
    item: str
    step: int
    steps: int
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StateDiscarded(Event, kind="state_discarded"):
    """What an interrupted attempt saved is of no use; the item begins anew."""

    stage: str
    item: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event, kind="warning"):
    """Something differs from what was asked for; ``stage`` and ``item`` are None where none is meant."""

    kind: str
    message: str
    stage: str | None = None
    item: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Retrying(Event, kind="retrying"):
    """An item failed, and is tried again."""

    stage: str
    item: str
    error: str
    traceback: str | None = field(default=None, metadata=_LEFT_OUT)
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class ItemFinished(Event, kind="item_finished"):
    """An item is done or has failed; ``seconds`` is what it computed, over all attempts."""

    stage: str
    item: str
    key: str = ""
    status: str
    seconds: float = 0.0
    error: str | None = None
    traceback: str | None = field(default=None, metadata=_LEFT_OUT)
    attempts: int = 1
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.status != "done"


# between a worker and its supervisor alone


@dataclass(frozen=True, kw_only=True)
class Ready(Event, kind="ready"):
    """Everything is loaded."""


@dataclass(frozen=True, kw_only=True)
class ItemStarted(Event, kind="item_started"):
    item: str


@dataclass(frozen=True, kw_only=True)
class Alive(Event, kind="alive"):
    """A sign of life, for as long as nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Stuck(Event, kind="stuck"):
    """An item has come to no step or block long after its time."""

    item: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed(Event, kind="failed"):
    """The worker cannot go on; ``code`` is the exit code of the error."""

    code: int
    error: str
    out_of_memory: bool = False
    vram: int | None = None
    ram: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Event, kind="finished"):
    """The worker has had all items; ``vram`` and ``ram`` are what it holds."""

    vram: int | None
    ram: int | None
    streamed: dict[str, float] | None = None


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
