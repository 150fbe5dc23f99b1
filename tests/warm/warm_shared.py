"""The shared process: imports modules once, then forks what tests start (``warm_shared.py SOCKET MODULE ...``).

It ends with the tests: when the process is gone whose number is in ``RUNNER_TESTS_OWNER``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

LARGEST = 1 << 20  # bytes of a message
MOST = 64  # descriptors
HIGH = 300  # descriptors below it may have any number in a starting fork server


def main(path: str, modules: list[str]) -> None:
    from runner.worker.forkserver import _preload

    _preload(modules)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are reaped by the kernel
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    Path(path).unlink(missing_ok=True)
    listening.bind(path)
    listening.listen(32)
    owner = os.pidfd_open(int(os.environ["RUNNER_TESTS_OWNER"]))
    print("listening", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while True:
        ready, _, _ = select.select([listening.fileno(), owner], [], [])
        if owner in ready:
            return
        connection, _ = listening.accept()
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                os.close(owner)
                listening.close()
                try:
                    serve(connection)
                finally:
                    os._exit(1)
        connection.close()


def serve(connection: socket.socket) -> None:
    """Become what the process at the other end was started as, and send it the exit code."""
    start = json.loads(connection.recv(LARGEST))
    connection.send(b"1")
    _, descriptors, _, _ = socket.recv_fds(connection, LARGEST, MOST)
    own = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
    connection.close()
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(high, start["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    die_with(own)
    os.setsid()
    os.chdir(start["folder"])
    os.environ.clear()
    os.environ.update(start["environment"])
    sys.path[:] = start["path"]
    sys.path_importer_cache.clear()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    leave = os._exit

    def exit_with(status: int) -> NoReturn:
        if os.getpid() == pid:  # not in what it forks
            os.write(own, str(status).encode())
        leave(status)

    pid = os.getpid()
    os._exit = exit_with
    sys.argv = [start["module"], *start["arguments"], str(os.getppid())]
    runpy.run_module(start["module"], run_name="__main__", alter_sys=True)


def die_with(connection: int) -> None:
    """Have the kernel kill this process when the other end of the connection is closed, however that happens."""
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
