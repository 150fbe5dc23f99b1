"""Events that a worker sends to its supervisor, and nobody else sees; those of items are published ones."""

from __future__ import annotations

from dataclasses import dataclass

from runner.events.codec import Event


@dataclass(frozen=True, kw_only=True)
class Ready(Event, kind="ready"):
    """Everything is loaded."""


@dataclass(frozen=True, kw_only=True)
class Checked(Event, kind="checked"):
    """What is wrong with a component: empty if nothing is, None if the worker cannot tell."""

    problem: str | None


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
    traceback: str = ""
    """Where its code was."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event, kind="failed"):
    """The worker cannot go on; ``code`` is the exit code of the error."""

    code: int
    error: str
    out_of_memory: bool = False
    device_lost: bool = False
    """The device failed, and this process can no longer use it; another one may."""
    vram: int | None = None
    """Bytes of the device's memory that the worker holds by its driver; None where that does not say."""
    vram_reserved: int | None = None
    """The most that torch's allocator had of it; None on the CPU."""
    ram: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Event, kind="finished"):
    """The worker has had all items; the sizes are what it holds, as in ``Failed``."""

    vram: int | None
    vram_reserved: int | None
    ram: int | None
    streamed: dict[str, float] | None = None
