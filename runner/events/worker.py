"""Events that only a worker's supervisor receives; events about items are in published.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.events.codec import Event


@dataclass(frozen=True, kw_only=True)
class Ready(Event, kind="ready"):
    """The worker has loaded everything."""


@dataclass(frozen=True, kw_only=True)
class Checked(Event, kind="checked"):
    """The result of a component's or an adapter's check."""

    problem: str | None
    """Empty if it passed, None if it cannot be checked."""
    report: dict[str, Any] | None = None
    """What an adapter adds to each component."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Event, kind="prepared"):
    """So many bytes of a component's weights are written anew."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Measured(Event, kind="measured"):
    """The activations of one size, by the names of their fields; or why they are not known."""

    activations: dict[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ItemStarted(Event, kind="item_started"):
    """The worker begins an item."""

    item: str


@dataclass(frozen=True, kw_only=True)
class Wanting(Event, kind="wanting"):
    """The worker of an open job has made all its items, and waits for more."""


@dataclass(frozen=True, kw_only=True)
class Alive(Event, kind="alive"):
    """A heartbeat, sent while there are no other events."""


@dataclass(frozen=True, kw_only=True)
class Stuck(Event, kind="stuck"):
    """An item has passed its timeout without reaching a step or block."""

    item: str
    seconds: float
    traceback: str = ""
    """The traceback of the code that runs."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event, kind="failed"):
    """The worker failed; ``code`` is the exit code of the error, ``vram`` and ``ram`` are bytes in use."""

    code: int
    error: str
    out_of_memory: bool = False
    cannot_fork: bool = False
    """The worker was forked, and the device's runtime refuses forks: a new process can use it."""
    device_lost: bool = False
    """The device failed, and this process can no longer use it; another one may."""
    vram: int | None = None
    """Bytes of the device's memory that the worker holds; None if the driver does not report them."""
    vram_reserved: int | None = None
    """The most bytes that torch's allocator has reserved; None on the CPU."""
    ram: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Event, kind="finished"):
    """The worker has finished all items; the sizes are as in ``Failed``."""

    ram: int | None
    vram: int | None = None
    vram_reserved: int | None = None
    streamed: dict[str, float] | None = None
