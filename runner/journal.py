"""Events of a run, and the journal that keeps them: one JSON object a line, only ever added to.

The same events feed the display, ``run --json`` and lifecycle hooks. Files are the truth about what is
done; the journal is the log of how it came about, and may end in a torn line after a power cut.
"""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.redact import redact_all
from runner.storage import open_in_place, storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

VERSION = 1
Event = dict[str, Any]


class EventKind(NamedTuple):
    """What an event says, and its fields besides ``event`` and ``time``."""

    meaning: str
    fields: tuple[str, ...]


EVENTS: Mapping[str, EventKind] = {
    "run_started": EventKind(
        "The run directory is locked; work begins.",
        ("run", "manifest", "stages", "items", "machine", "versions"),
    ),
    "waiting": EventKind("Another run holds the run directory or the device.", ("reason",)),
    "stage_started": EventKind(
        "A stage's worker starts. A stage with nothing to do is not started. Sizes are bytes.",
        ("stage", "items", "placement", "predicted", "budget", "device", "dtype", "last"),
    ),
    "progress": EventKind(
        "A step of an item is done; during a download, bytes of a model.", ("stage", "item", "step", "steps")
    ),
    "item_finished": EventKind(
        "An item is done or failed at a stage; a failure has its traceback and number of attempts.",
        ("stage", "item", "key", "seconds", "status", "error", "params", "traceback", "attempts"),
    ),
    "retrying": EventKind(
        "An item failed and will be tried again.", ("stage", "item", "error", "traceback", "attempts")
    ),
    "warning": EventKind(
        "The run goes on, but something differs from what was asked for.",
        ("kind", "message", "stage", "item", "details"),
    ),
    "state_discarded": EventKind(
        "A saved state cannot be used; the item starts again.", ("stage", "item", "reason")
    ),
    "worker_died": EventKind(
        "A worker crashed, hung or was killed; another one goes on.", ("stage", "items", "error")
    ),
    "out_of_memory": EventKind(
        "A worker ran out of memory; `next` is the placement that the stage goes on with, or null.",
        ("stage", "placement", "predicted", "measured", "error", "next"),
    ),
    "stage_finished": EventKind(
        "A stage's worker has exited: counts of items, peaks in bytes, `memory` over time.",
        (
            *("stage", "seconds", "done", "cached", "failed"),
            *("predicted", "measured", "streamed", "memory"),
        ),
    ),
    "run_finished": EventKind(
        "The run has ended; `error` says why it stopped early.", ("exit_code", "outputs", "seconds", "error")
    ),
    "summary": EventKind(
        "The last line where `run` was given several manifests.", ("exit_code", "manifests")
    ),
}
"""The events that ``run --json`` prints, in the order in which they can come."""


class Events:
    """Hands each event, stamped with its time, to all who listen."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self._lock = threading.Lock()  # downloads report from several threads

    def emit(self, event: str, **fields: Any) -> None:
        stamped = {"event": event, "time": now(), **redact_all(fields)}
        with self._lock:
            for listener in self.listeners:
                listener(stamped)


LIVE = ("progress", "memory")
"""Events for who is watching; nothing that a log must keep."""


class Journal:
    """The journal of a run directory, as a listener."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            self._descriptor = open_in_place(path, os.O_RDWR | os.O_APPEND)
            self._torn = not _ends_line(self._descriptor)

    def __call__(self, event: Event) -> None:
        if event["event"] in LIVE:
            return
        line = json.dumps({"version": VERSION, **event}).encode() + b"\n"
        left = b"\n" + line if self._torn else line
        with storage_errors(self._path):
            self._torn = True  # until it is written whole: a disk may fill up within a line
            while left:
                left = left[os.write(self._descriptor, left) :]
            self._torn = False

    def close(self) -> None:
        os.close(self._descriptor)


def read_journal(path: Path, until: int | None = None) -> Iterator[Event]:
    """The events that can be read, of the first ``until`` bytes if that is given; torn lines are left out."""
    with path.open("rb") as file:
        while (until is None or file.tell() < until) and (line := file.readline()):
            try:
                event = json.loads(line.decode(errors="replace"))
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and "event" in event:
                yield event


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ends_line(descriptor: int) -> bool:
    end = os.lseek(descriptor, 0, os.SEEK_END)
    if end == 0:
        return True
    os.lseek(descriptor, end - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"
