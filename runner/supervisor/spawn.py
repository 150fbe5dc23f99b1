"""Starts workers in new interpreters; the interfaces and environment that all launchers share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Protocol

from runner.accelerator.names import BUS_ORDER
from runner.files.storage import open_in_place
from runner.machine import malloc
from runner.redact import SECRETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


WORKER_ENVIRONMENT = {
    **malloc.ENVIRONMENT,
    # the supervisor fetches models: workers stay offline
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # for classes of plugins that load pickles: no code may be loaded with the weights
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # cuda:N is the N-th card here too
    **BUS_ORDER,
    # looking for cards must not initialise the driver: a fork could not use it
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # a fixed size: with less memory cuBLAS would take another algorithm, and give other low bits
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


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


def environment(threads: int) -> dict[str, str]:
    """A worker's environment variables; it imports from the same places as the supervisor."""
    script = os.path.dirname(sys.argv[0])  # noqa: PTH120 - spelled as in sys.path
    places = [os.path.abspath(place) for place in sys.path if place != script]  # noqa: PTH100
    own = {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": str(threads)}
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {**inherited, **WORKER_ENVIRONMENT, **own}


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of runner."""
    # -P: do not import from the working directory, unless the supervisor does
    return [sys.executable, "-P", "-m", module, *arguments]


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
