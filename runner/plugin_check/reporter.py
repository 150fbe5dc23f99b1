"""Reports from the process that runs plugin checks to the process that started it."""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING, Any

from runner.plugin_check import time_limit
from runner.plugin_check.checks import BROKEN, Verdict
from runner.plugin_check.time_limit import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.plugin_check.requests import CheckRequest
    from runner.plugin_check.time_limit import CallSite


class Reporter:
    """Writes one JSON object a line to a stream."""

    def __init__(self, stream: IO[str], request: CheckRequest) -> None:
        self._stream = stream
        self._seconds = request.seconds
        self._check = self._subject = ""
        self.current_item = ""
        """The item that the stage is making, for the message when the time is over."""
        self.packages: set[str] = set()
        """The plugin's own top-level packages: their lines are shown when the time is over."""

    def check_started(self, check: str, subject: str) -> None:
        """Report which check starts, of which plugin, stage or manifest."""
        self._check, self._subject = check, subject
        self.write(started=check, subject=subject, seconds=self._seconds, packages=[*self.packages])

    def item_started(self, item: str) -> None:
        self.current_item = item

    def write(self, **line: Any) -> None:
        """Write one line, with how many bytes have been printed to stderr so far."""
        printed = os.lseek(2, 0, os.SEEK_END)
        self._stream.write(json.dumps({**line, "printed": printed}) + "\n")

    def verdicts(self, found: Iterable[Verdict]) -> None:
        """Report verdicts as they are found; when the time is over, report where the code was and exit."""
        with TimeLimit(self._seconds, self._on_timeout):
            for verdict in found:
                self.write(verdict=vars(verdict))

    def _on_timeout(self, stack: list[CallSite]) -> None:
        message, log = time_limit.describe(stack, self._seconds, self.packages)
        if self.current_item:
            message = f"item '{self.current_item}': {message}"
        verdict = Verdict(self._subject, self._check, BROKEN, message, time_limit.ADVICE, log)
        self.write(verdict=vars(verdict))
        os._exit(0)  # the main thread cannot be interrupted
