"""A time limit on what a plugin does in this process, and the plugin's own line that it was at then."""

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

ADVICE = "give it more time (--timeout SECONDS; in a StageContract, `timeout`), or mend what it waits for"
LOOK = 0.2  # seconds
_RUNNER = Path(__file__).parents[1]
_FRAME = re.compile(r'File "(.+)", line (\d+),? in (.+)')


@dataclass(frozen=True)
class CallSite:
    """Where code was."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}, line {self.line} in {self.function}"

    def is_of(self, packages: Collection[str]) -> bool:
        """Whether it lies in one of these top-level packages or modules."""
        return not {*packages}.isdisjoint(Path(self.file).with_suffix("").parts)

    @property
    def is_ours(self) -> bool:
        return Path(self.file).is_relative_to(_RUNNER)


def places(text: str) -> list[CallSite]:
    """The places that a traceback of Python's or of faulthandler's names, in its order."""
    return [CallSite(file, int(line), function.strip()) for file, line, function in _FRAME.findall(text)]


def tell(innermost_first: Sequence[CallSite], seconds: float, packages: Collection[str]) -> tuple[str, str]:
    """What to say of code that came to no end: in a line, and its own part of the stack."""
    theirs = list(takewhile(lambda place: not place.is_ours, innermost_first))
    own = next((place for place in theirs if place.is_of(packages)), theirs[0] if theirs else None)
    stack = "\n".join(f'File "{p.file}", line {p.line} in {p.function}' for p in theirs)
    return f"no end within {seconds:g} s{f': {own}' if own else ''}", stack


class TimeLimit:
    """Calls ``over`` with the main thread's stack, innermost first, when the time is over, from a thread."""

    def __init__(self, seconds: float, over: Callable[[list[CallSite]], None]) -> None:
        self._seconds = seconds
        self._over = over
        self._ended = threading.Event()
        self.restart()

    def restart(self) -> None:
        """Begin again with all of the time."""
        self._deadline = active_seconds() + self._seconds

    def __enter__(self) -> Self:
        threading.Thread(target=self._look, name="time-limit", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _look(self) -> None:
        main = threading.main_thread().ident
        while not self._ended.wait(LOOK):
            if active_seconds() > self._deadline:
                stack = traceback.format_stack(sys._current_frames()[main or 0])  # noqa: SLF001
                self._over(places("".join(stack))[::-1])
                return
