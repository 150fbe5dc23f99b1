"""A time limit on a plugin's code in this process, and the line that it was executing when it expired."""

from __future__ import annotations

import re
import sys
import threading
import traceback
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from runner.machine.active_time import active_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

ADVICE = "give it more time (--timeout SECONDS; in a StageContract, `timeout`), or fix what it waits for"
POLL_INTERVAL = 0.2  # seconds
_RUNNER = Path(__file__).parents[1]
_FRAME = re.compile(r'File "(.+)", line (\d+),? in (.+)')


@dataclass(frozen=True)
class CallSite:
    """One entry of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}, line {self.line} in {self.function}"

    def is_in(self, packages: Collection[str]) -> bool:
        """Whether its file is in one of these top-level packages or modules."""
        return not {*packages}.isdisjoint(Path(self.file).with_suffix("").parts)

    @property
    def is_in_runner(self) -> bool:
        return Path(self.file).is_relative_to(_RUNNER)


def call_sites(text: str) -> list[CallSite]:
    """The entries of a traceback of Python's or of faulthandler's, in its order."""
    return [CallSite(file, int(line), function.strip()) for file, line, function in _FRAME.findall(text)]


def describe(
    innermost_first: Sequence[CallSite], seconds: float, packages: Collection[str]
) -> tuple[str, str]:
    """A message about code that exceeded its time, and the part of its stack that is not runner's."""
    stack = list(takewhile(lambda site: not site.is_in_runner, innermost_first))
    site = next((site for site in stack if site.is_in(packages)), stack[0] if stack else None)
    log = "\n".join(f'File "{s.file}", line {s.line} in {s.function}' for s in stack)
    return f"not finished after {seconds:g} s{f': {site}' if site else ''}", log


class TimeLimit:
    """While entered, a thread calls ``on_timeout`` with the main thread's stack once the time is over."""

    def __init__(self, seconds: float, on_timeout: Callable[[list[CallSite]], None]) -> None:
        """The stack is passed innermost first."""
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._ended = threading.Event()
        self.restart()

    def restart(self) -> None:
        """Start again with the full time."""
        self._deadline = active_seconds() + self._seconds

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="time-limit", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        main = threading.main_thread().ident
        while not self._ended.wait(POLL_INTERVAL):
            if active_seconds() > self._deadline:
                stack = traceback.format_stack(sys._current_frames()[main or 0])  # noqa: SLF001
                self._on_timeout(call_sites("".join(stack))[::-1])
                return
