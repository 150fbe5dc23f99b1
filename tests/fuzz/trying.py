"""Trying inputs, and what they may not do: write, start anything, take memory or time without end.

Writes and starts are seen by an audit hook, in whatever library they happen.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import HypothesisWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import SearchStrategy

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""How long each kind of input is tried; 0 for one round of the same inputs every time."""
ROUND = 120  # inputs
HANGS = 20  # seconds of computing after which an input is said to hang
MEMORY = 2 << 30  # bytes that may be asked for beyond what the process has

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.rmdir",
)
_STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "pickle.find_class",
    "socket.connect",
)
_seen: list[str] | None = None
Found = TypeVar("Found")
Refusal = TypeVar("Refusal", bound=Exception)


class HungError(Exception):
    """An input took too long."""


def try_inputs(check: Callable[[Any], None], inputs: SearchStrategy[Any], share: float = 1) -> int:
    """Check inputs; returns how many. ``share`` is that of a round, for checks that are slow."""
    tried = 0

    @settings(
        max_examples=max(1, int(ROUND * share)),
        derandomize=not SECONDS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def each(one: Any) -> None:
        nonlocal tried
        tried += 1
        check(one)

    end = time.monotonic() + SECONDS
    with limited(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # of inputs that are long to show
        each()
        while time.monotonic() < end:
            each()
    return tried


def attempt(look: Callable[[], Found], refusal: type[Refusal]) -> tuple[Found | None, Refusal | None]:
    """What ``look`` finds, under watch, or how it refuses."""
    try:
        with watched():
            return look(), None
    except refusal as error:
        return None, error


@contextmanager
def watched() -> Iterator[None]:
    """See that nothing is written, nothing is started or connected to, and that it ends."""
    global _seen  # noqa: PLW0603 - an audit hook stays for good, and learns here when to look
    seen: list[Any] = []
    _seen = seen
    before = signal.signal(signal.SIGPROF, _hung)
    signal.setitimer(signal.ITIMER_PROF, HANGS)
    # a loop in C hears no signal: this ends the whole process, and says where it was
    faulthandler.dump_traceback_later(10 * HANGS, exit=True, file=sys.__stderr__ or 2)
    writes_code, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_code
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        _seen = None
    assert seen == []


@contextmanager
def limited() -> Iterator[None]:
    """Whatever asks for much more memory than there is in use gets a MemoryError, which no check expects."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _hung(_signal: int, _frame: object) -> None:
    raise HungError(f"not within {HANGS} s of computing")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in _CHANGES or event in _STARTS or (event == "open" and (arguments[2] or 0) & _WRITES):
        _seen.append(f"{event} {arguments[:2]}")


sys.addaudithook(_hook)
