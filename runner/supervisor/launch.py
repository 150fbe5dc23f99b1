"""Starting workers: forked from a server that has imported everything, or each in a fresh interpreter.

CUDA does not survive a fork, and forking a process with Apple's frameworks loaded is unsafe: there, and
where there is no fork, workers are spawned.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from runner.errors import StageError
from runner.protocol import MESSAGE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.plan.pipeline import Pipeline
    from runner.rundir import RunDirectory

CAN_FORK = sys.platform == "linux"
WORKER_ENVIRONMENT = {
    # freed memory goes back to the system: the true peak plus 12 MiB, not plus 121
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    # models were fetched by the supervisor: a worker has no business on the network
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ENGINE_PRELOAD = ("torch", "runner.worker.loop", "runner.worker.publish")


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

    def start(self, log: Path) -> Process: ...

    def close(self) -> None: ...


def _environment(threads: int) -> dict[str, str]:
    """The worker's: what the supervisor can import, the worker can, from the same places."""
    script = os.path.dirname(sys.argv[0])  # noqa: PTH120 - as it stands in sys.path
    places = [os.path.abspath(place) for place in sys.path if place != script]  # noqa: PTH100
    own = {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": str(threads)}
    return {**os.environ, **WORKER_ENVIRONMENT, **own}


def _interpreter(module: str, *arguments: str) -> list[str]:
    # -P: nothing is imported from the folder that the user happens to stand in, unless the supervisor does
    return [sys.executable, "-P", "-m", module, *arguments]


class Spawner:
    """Each worker in a fresh interpreter."""

    def __init__(self, threads: int, inherit: Sequence[int] = ()) -> None:
        self._threads = threads
        self._inherit = inherit

    def start(self, log: Path) -> Process:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            popen = subprocess.Popen(
                _interpreter("runner.worker", str(os.getpid())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=_environment(self._threads),
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
                pass_fds=tuple(self._inherit) if os.name == "posix" else (),
            )
        return _Spawned(popen)

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
        _kill_group(self.pid)
        self._popen.kill()


class ForkServer:
    """Workers forked from one process that has imported what they need."""

    def __init__(self, preload: Sequence[str], threads: int, log: Path, inherit: Sequence[int] = ()) -> None:
        # packets, so that every message arrives whole and alone
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file, theirs:
            self._popen = subprocess.Popen(
                _interpreter("runner.worker.forkserver", str(theirs.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=_environment(threads),
                start_new_session=True,
                pass_fds=(theirs.fileno(), *inherit),
            )
        self._control = ours
        self._log = log
        self._exits: dict[int, int] = {}
        self._spawner = Spawner(threads, inherit)
        self._threads_started: int | None = None
        preloads = dict.fromkeys((*ENGINE_PRELOAD, *preload))
        ours.sendall(json.dumps({"preload": list(preloads)}).encode())

    def start(self, log: Path) -> Process:
        """Fork a worker; spawn one if the imports left threads behind, which forks do not survive."""
        if self._threads_started is None:
            self._threads_started = int(self._answer("threads")["threads"])
        if self._threads_started > 0:
            return self._spawner.start(log)
        log.parent.mkdir(parents=True, exist_ok=True)
        commands_read, commands_write = os.pipe()
        events_read, events_write = os.pipe()
        log_write = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        theirs = [commands_read, events_write, log_write]
        try:
            socket.send_fds(self._control, [b'{"fork": true}'], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        pid = int(self._answer("pid")["pid"])
        commands, events = os.fdopen(commands_write, "wb"), os.fdopen(events_read, "rb")
        return _Forked(self, pid, commands, events)

    def exit_code(self, pid: int, seconds: float) -> int | None:
        """The exit code of a child, waiting for it at most so long; the server's end is its children's."""
        deadline = time.monotonic() + seconds
        while pid not in self._exits:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._control], [], [], left)[0]:
                return None
            answer = self._next_answer()
            if answer is None:
                self._popen.wait()
                return self._exits.setdefault(pid, -9)
            self._note(answer)
        return self._exits[pid]

    def close(self) -> None:
        self._control.close()
        try:
            self._popen.wait(2)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        with contextlib.suppress(OSError):
            if self._log.stat().st_size == 0:
                self._log.unlink()

    def _answer(self, kind: str) -> dict[str, Any]:
        while True:
            answer = self._next_answer()
            if answer is None:
                code = self._popen.wait()
                raise StageError(f"the fork server ended with exit code {code}; see the run's logs")
            if kind in answer:
                return answer
            self._note(answer)

    def _next_answer(self) -> dict[str, Any] | None:
        try:
            packet = self._control.recv(MESSAGE_LIMIT)
        except ConnectionResetError:
            return None
        answer: dict[str, Any] | None = json.loads(packet) if packet else None
        return answer

    def _note(self, answer: dict[str, Any]) -> None:
        if "exited" in answer:
            self._exits[int(answer["exited"])] = int(answer["code"])


class _Forked:
    def __init__(self, server: ForkServer, pid: int, commands: IO[bytes], events: IO[bytes]) -> None:
        self._server = server
        self.pid = pid
        self.commands = commands
        self.events = events

    def poll(self) -> int | None:
        return self._server.exit_code(self.pid, 0)

    def wait(self, seconds: float) -> int | None:
        return self._server.exit_code(self.pid, seconds)

    def kill(self) -> None:
        _kill_group(self.pid)


def _kill_group(leader: int) -> None:
    """Kill a worker, which leads a group, and whatever is left of the group."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


class Launchers:
    """The launchers of a run: one fork server for all CPU stages of a thread count, else spawners."""

    def __init__(self, pipeline: Pipeline, directory: RunDirectory, inherit: Sequence[int]) -> None:
        self._specs = [stage.spec for stage in pipeline.stages]
        self._directory = directory
        self._inherit = inherit
        self._started: dict[tuple[bool, int], Launcher] = {}

    def get(self, device: str, threads: int) -> Launcher:
        fork = CAN_FORK and device == "cpu"
        if (fork, threads) not in self._started:
            self._started[fork, threads] = (
                self._fork_server(threads) if fork else Spawner(threads, self._inherit)
            )
        return self._started[fork, threads]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self._started.values():
            launcher.close()

    def _fork_server(self, threads: int) -> Launcher:
        # parameter models are imported by the supervisor too: they are known to be light
        modules = [spec.params.partition(":")[0] for spec in self._specs if spec.params]
        modules += [module for spec in self._specs for module in spec.preload]
        return ForkServer(modules, threads, self._directory.log("forkserver"), self._inherit)
