"""Starting workers, each in a fresh interpreter; and what every way of starting them has in common."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Protocol

from runner.files.storage import open_in_place
from runner.machine import malloc as heap
from runner.redact import SECRETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


WORKER_ENVIRONMENT = {
    **heap.ENVIRONMENT,
    # models were fetched by the supervisor: a worker has no business on the network
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # for classes of plugins that know no safetensors: what they load may not bring code along
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Process(Protocol):
    """A worker's process, however it was started."""

    pid: int
    commands: IO[bytes]
    events: IO[bytes]

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None while it lives."""

    def wait(self, seconds: float) -> int | None:
        """The exit code as soon as there is one, None after so many seconds."""

    def kill(self) -> None:
        """End it, and what it started."""


class Launcher(Protocol):
    """A way to start workers."""

    def start(self, log: Path) -> Process:
        """Start a worker whose output goes to the log.

        Raises:
            WorkerDiedError: it could not be started.

        """

    @property
    def usable(self) -> bool:
        """Whether it can start another one."""

    def close(self) -> None: ...


def environment(threads: int) -> dict[str, str]:
    """The worker's: what the supervisor can import, the worker can, from the same places."""
    script = os.path.dirname(sys.argv[0])  # noqa: PTH120 - as it stands in sys.path
    places = [os.path.abspath(place) for place in sys.path if place != script]  # noqa: PTH100
    own = {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": str(threads)}
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {**inherited, **WORKER_ENVIRONMENT, **own}


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules."""
    # -P: nothing is imported from the folder that the user happens to stand in, unless the supervisor does
    return [sys.executable, "-P", "-m", module, *arguments]


class Spawner:
    """Each worker in a fresh interpreter."""

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
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
                pass_fds=tuple(self._inherit),
            )
        return _Spawned(popen)

    @property
    def usable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is kept between workers."""


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
    """Kill a worker, which leads a group, and whatever is left of the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
