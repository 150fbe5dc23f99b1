"""Imports libraries once and forks workers (``python -m runner.worker.forkserver SOCKET PARENT``).

Importing torch, diffusers and transformers takes seconds, a fork milliseconds. Threads and accelerators in
use do not survive a fork, so this process only imports; it then reports the threads that the imports started
(numpy's recover by themselves) and whether they used a device: the supervisor does not fork then.

Requests and answers are JSON packets on a socket; a request to fork carries three descriptors: commands to
read, events to write, log to write. The supervisor's side is
:class:`runner.supervisor.processes.forked.ForkServer`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from runner.plugins import collection_paused
from runner.protocol import MESSAGE_LIMIT
from runner.worker import parent_watch
from runner.worker.main import serve


class WorkerForker:
    """Forks workers on request, and reports their exit codes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Serve until the supervisor's end of the socket closes."""
        self._watch_children()
        hello = self._receive()
        if hello is None:
            return
        self._send(threads=_preload(hello[0]["preload"]), used_device=_used_device())
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
        # in this process too: the supervisor may kill the group as soon as it has the pid
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        for descriptor in (commands, events, log):
            os.close(descriptor)
        self._send(pid=pid)

    def _become_worker(self, parent: int, commands: int, events: int, log: int) -> None:
        code = 1
        try:
            parent_watch.bind_to_parent(parent)
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
            code = serve(os.fdopen(commands, "rb"), events, forked=True)
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
    """Import modules; returns the number of threads they started. Errors are left to the worker's import.

    What they leave is frozen: collections in the workers neither scan it nor copy its pages.
    """
    for name in ("numpy", *modules):
        with contextlib.suppress(Exception, SystemExit), collection_paused():
            importlib.import_module(name)
        if name == "numpy":
            before = _threads()
    gc.freeze()
    return _threads() - before


def _used_device() -> bool:
    """Whether the imports used an accelerator; finding out does not."""
    backends = sys.modules.get("runner.accelerator.backends")
    return backends is not None and backends.accelerator_in_use() is not None


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


if __name__ == "__main__":
    parent_watch.bind_to_parent(int(sys.argv[2]))
    WorkerForker(socket.socket(fileno=int(sys.argv[1]))).run()
    os._exit(0)  # the libraries' exit handlers take a third of a second, which the supervisor would wait for
