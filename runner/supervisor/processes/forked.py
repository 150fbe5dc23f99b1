"""Starts workers as forks of a server process that has imported their libraries."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any

from runner.errors import WorkerDiedError
from runner.files.storage import open_in_place, remove_if_empty
from runner.machine.interpreter import environment, interpreter
from runner.protocol import MESSAGE_LIMIT
from runner.supervisor.processes.spawn import Spawner, kill_group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.supervisor.processes.spawn import Process

ENGINE_PRELOAD = ("torch", "runner.worker.loop", "runner.worker.output_writer")


class ForkServer:
    """A process that imports the libraries once and forks workers.

    Messages to and from it are JSON objects over a socket.
    """

    def __init__(self, preload: Sequence[str], threads: int, log: Path, inherit: Sequence[int] = ()) -> None:
        # packets keep message boundaries
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with os.fdopen(open_in_place(log, os.O_WRONLY | os.O_APPEND), "ab") as file, theirs:
            self._popen = subprocess.Popen(
                interpreter("runner.worker.forkserver", str(theirs.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment(threads),
                start_new_session=True,
                pass_fds=(theirs.fileno(), *inherit),
            )
        self._control = ours
        self._log = log
        self._exits: dict[int, int] = {}
        self._spawner = Spawner(threads, inherit)
        self._forkable: bool | None = None
        preloads = dict.fromkeys((*ENGINE_PRELOAD, *preload))
        ours.sendall(json.dumps({"preload": list(preloads)}).encode())

    def start(self, log: Path) -> Process:
        """Fork a worker; spawn one if the imports started threads or used a device: forks lack both."""
        if self._forkable is None:
            imports = self._answer("threads")
            self._forkable = imports["threads"] <= 0 and not imports["used_device"]
        if not self._forkable:
            return self._spawner.start(log)
        log_write = open_in_place(log, os.O_WRONLY | os.O_APPEND)
        commands_read, commands_write = os.pipe()
        events_read, events_write = os.pipe()
        commands, events = os.fdopen(commands_write, "wb"), os.fdopen(events_read, "rb")
        theirs = [commands_read, events_write, log_write]
        try:
            socket.send_fds(self._control, [b'{"fork": true}'], theirs)
            pid = int(self._answer("pid")["pid"])
        except BaseException as error:
            commands.close()
            events.close()
            if isinstance(error, OSError):
                raise self._ended() from error
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return _Forked(self, pid, commands, events)

    @property
    def usable(self) -> bool:
        return self._popen.poll() is None

    def exit_code(self, pid: int, seconds: float) -> int | None:
        """The exit code of a child, None if it has none within ``seconds``; -9 if the server has died."""
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
        remove_if_empty(self._log)

    def _answer(self, kind: str) -> dict[str, Any]:
        while True:
            answer = self._next_answer()
            if answer is None:
                raise self._ended()
            if kind in answer:
                return answer
            self._note(answer)

    def _ended(self) -> WorkerDiedError:
        code = self._popen.wait()
        return WorkerDiedError(f"the fork server ended with exit code {code}; see {self._log}")

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
        kill_group(self.pid)
