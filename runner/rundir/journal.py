"""The events of a run and their listeners; the journal, an append-only file with a JSON object per line.

What is done is decided by the result files; the journal is a log, and may end in an incomplete line.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.events import FetchProgress, Memory, Progress, StageReady, decode, encode
from runner.events.json_values import written
from runner.files.storage import open_in_place, storage_errors
from runner.redact import redact_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.events import Event

VERSION = 1


class Events:
    """Passes each event to all listeners, with the time added and secrets removed."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self._lock = threading.Lock()  # downloads report from several threads

    def emit(self, event: Event) -> None:
        stamped = replace(event, **redact_all(vars(event) | {"time": present()}))
        with self._lock:
            for listener in self.listeners:
                listener(stamped)


LIVE = (Progress, FetchProgress, StageReady, Memory)
"""Events that are only displayed, not written to the journal."""


class Journal:
    """Writes the journal of a run directory: a listener."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            self._descriptor = open_in_place(path, os.O_RDWR | os.O_APPEND)
            # whether the file ends in an incomplete line
            self._torn = not _ends_line(self._descriptor)

    def __call__(self, event: Event) -> None:
        if isinstance(event, LIVE):
            return
        line = json.dumps({"version": VERSION, **encode(event)}).encode() + b"\n"
        left = b"\n" + line if self._torn else line
        with storage_errors(self._path):
            self._torn = True  # until the whole line is written: the disk may fill up
            while left:
                left = left[os.write(self._descriptor, left) :]
            self._torn = False

    def close(self) -> None:
        os.close(self._descriptor)


def read_journal(path: Path, until: int | None = None) -> Iterator[Event]:
    """The events of the first ``until`` bytes, or of all; invalid lines are skipped."""
    with path.open("rb") as file:
        while (until is None or file.tell() < until) and (line := file.readline()):
            try:
                event = decode(json.loads(line.decode(errors="replace")))
            except (ValueError, RecursionError):
                continue
            if event is not None:
                yield event


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return written(present())


def present() -> datetime:
    """The time in UTC, to the millisecond that is written."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _ends_line(descriptor: int) -> bool:
    end = os.lseek(descriptor, 0, os.SEEK_END)
    if end == 0:
        return True
    os.lseek(descriptor, end - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"
