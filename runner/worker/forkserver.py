"""Imports once, forks often (``python -m runner.worker.forkserver SOCKET PARENT``).

Importing torch, diffusers and transformers takes seconds; a fork of a process that has done it takes
milliseconds. It only ever imports: one operation that starts a thread pool here would leave every child
waiting for threads that did not come along. So after the imports it counts its threads, and refuses to
fork where there are more than numpy's own (whose library mends itself in the child).

Requests and answers are packets of JSON on a socket; a request to fork carries three descriptors: commands to
read, events to write, log to write.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from runner.protocol import MESSAGE_LIMIT
from runner.worker import parent_watch as lifeline
from runner.worker.main import serve


class WorkerForker:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Serve until the supervisor's end of the socket closes."""
        self._watch_children()
        hello = self._receive()
        if hello is None:
            return
        self._send(threads=_preload(hello[0]["preload"]))
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while True:
                for ready, _ in selector.select():
                    if ready.fileobj is self._control:
                        request = self._receive()
                        if request is None:
                            return
                        self._fork(*request[1])
                    else:
                        os.read(self._wake_read, 512)
                        self._reap()

    def _watch_children(self) -> None:
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)

    def _fork(self, commands: int, events: int, log: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(parent, commands, events, log)
        with contextlib.suppress(
            OSError
        ):  # here too: whoever is told of the child may kill its group at once
            os.setpgid(pid, pid)
        for descriptor in (commands, events, log):
            os.close(descriptor)
        self._send(pid=pid)

    def _become_worker(self, parent: int, commands: int, events: int, log: int) -> None:
        code = 1
        try:
            lifeline.bind_to_parent(parent)
            os.setpgid(0, 0)  # so that what the stage starts can be ended with it
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            code = serve(os.fdopen(commands, "rb"), events)
            sys.stdout.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._send(exited=ended[0], code=os.waitstatus_to_exitcode(ended[1]))

    def _send(self, **message: Any) -> None:
        self._control.sendall(json.dumps(message).encode())

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_LIMIT, 3)
        return (json.loads(data), descriptors) if data else None


def _preload(modules: list[str]) -> int:
    """Import ahead; returns the threads that this started. A module that fails fails again in the worker."""
    for name in ("numpy", *modules):
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
        if name == "numpy":
            before = _threads()
    return _threads() - before


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


if __name__ == "__main__":
    lifeline.bind_to_parent(int(sys.argv[2]))
    WorkerForker(socket.socket(fileno=int(sys.argv[1]))).run()
