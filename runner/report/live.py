"""Updates the page during a run, in a thread of its own: the run never waits for it."""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import TYPE_CHECKING

from runner.events import RunFinished, RunStarted
from runner.report.page import Page

if TYPE_CHECKING:
    from runner.events import Event
    from runner.rundir.directory import RunDirectory

FIRST = 1.0  # seconds until the page is first written
PAUSE = 5.0  # seconds between two writes
SHARE = 0.02  # of the time is spent writing, at most, however large the page is


class LiveReport:
    """Writes ``report.html`` during a run: a listener, to be closed when the run has ended.

    If the page cannot be written, that is one line on stderr, and the run is not affected.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._page = Page(directory)
        journal = directory.journal
        self._before: int | None = journal.stat().st_size if journal.exists() else 0
        self._settled = self._page.is_settled
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._trouble = ""
        self._thread = threading.Thread(target=self._follow, name="report", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        self._events.put(event)

    def close(self) -> None:
        """Write the page's final state."""
        self._events.put(None)
        self._thread.join()
        if self._trouble:
            print(f"runner: report.html is not up to date: {self._trouble}", file=sys.stderr)  # noqa: T201

    def _follow(self) -> None:
        due = time.monotonic() + FIRST
        fresh: list[Event] = []
        while True:
            try:
                event = self._events.get(timeout=self._pause(fresh, due))
            except queue.Empty:
                began = time.monotonic()
                self._write(fresh, live=True)
                now = time.monotonic()
                due = now + max(PAUSE, (now - began) / SHARE)
                continue
            if event is None:
                break
            fresh.append(event)
        if self._settled and self._was_idle(fresh):
            self._page.keep()
        else:
            self._write(fresh, live=False)

    def _pause(self, fresh: list[Event], due: float) -> float | None:
        """Seconds until the page is written next; None while there is nothing new to show.

        A run's start and end alone do not count: it may have had nothing to do, and `close` writes the end.
        """
        has_news = not all(isinstance(event, RunStarted | RunFinished) for event in fresh)
        return max(0.0, due - time.monotonic()) if has_news else None

    @staticmethod
    def _was_idle(fresh: list[Event]) -> bool:
        """Whether the run had nothing to do."""
        match fresh:
            case [RunStarted(), RunFinished(exit_code=0)]:
                return True
        return False

    def _write(self, fresh: list[Event], *, live: bool) -> None:
        """Pass the new events to the page, and write it."""
        if self._before is not None:
            self._page.read(self._before)
            self._before = None
        self._settled = False
        for event in fresh:
            self._page.take(event)
        fresh.clear()
        try:
            self._page.write(live=live)
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"
        else:
            self._trouble = ""
