"""Events of a run, and the journal that keeps them: one JSON object a line, only ever added to.

The same events feed the display, ``run --json`` and lifecycle hooks. Files are the truth about what is
done; the journal is the log of how it came about, and may end in a torn line after a power cut.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from runner.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSION = 1
Event = dict[str, Any]


class Events:
    """Hands each event, stamped with its time, to all who listen."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self._lock = threading.Lock()  # downloads report from several threads

    def emit(self, event: str, **fields: Any) -> None:
        stamped = {"event": event, "time": now(), **fields}
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
            path.parent.mkdir(parents=True, exist_ok=True)
            torn = path.exists() and not _ends_line(path)
            self._file: TextIO = path.open("a", encoding="utf-8")
            if torn:
                self._file.write("\n")

    def __call__(self, event: Event) -> None:
        if event["event"] not in LIVE:
            with storage_errors(self._path):
                self._file.write(json.dumps({"version": VERSION, **event}) + "\n")
                self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Event]:
    """The events that can be read; torn lines are passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
