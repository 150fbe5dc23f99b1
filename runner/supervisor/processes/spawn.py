"""Starts workers in new interpreters; the interfaces that all launchers share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Protocol

from runner.files.storage import open_in_place
from runner.machine.interpreter import environment, interpreter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Process(Protocol):
    """A worker's process, forked or spawned."""

    pid: int
    commands: IO[bytes]
    events: IO[bytes]

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it); None while it runs."""

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if it has not exited within ``seconds``."""

    def kill(self) -> None:
        """Kill it and its process group."""


class Launcher(Protocol):
    """Starts workers."""

    def start(self, log: Path) -> Process:
        """Start a worker whose output goes to the log.

        Raises:
            WorkerDiedError: it could not be started.

        """

    @property
    def usable(self) -> bool:
        """Whether it can start another worker."""

    def close(self) -> None: ...


class Spawner:
    """Starts each worker in a new interpreter."""

    def __init__(self, threads: int, inherit: Sequence[int] = ()) -> None:
        self._threads = threads
        self._inherit = inherit

    def start(self, log: Path) -> Process:
        with os.fdopen(open_in_place(log, os.O_WRONLY | os.O_APPEND), "ab") as file:
            popen = subprocess.Popen(
                interpreter("runner.worker", str(os.getpid())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment(self._threads),
                start_new_session=True,  # Ctrl-C in the terminal goes to the supervisor alone
                pass_fds=tuple(self._inherit),
            )
        return _Spawned(popen)

    @property
    def usable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing to close: no state between workers."""


class _Spawned:
    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        if popen.stdin is None or popen.stdout is None:
            raise AssertionError("both are pipes")
        self._popen = popen
        self.pid = popen.pid
        self.commands: IO[bytes] = popen.stdin
        self.events: IO[bytes] = popen.stdout

    def poll(self) -> int | None:
        return self._popen.poll()

    def wait(self, seconds: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def kill(self) -> None:
        kill_group(self.pid)
        self._popen.kill()


def kill_group(leader: int) -> None:
    """Kill a process group, given by its leader: a worker and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
