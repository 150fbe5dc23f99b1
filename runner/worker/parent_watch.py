"""What ends a worker with its parent, however the parent dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING

from runner.protocol import STOP

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bind_to_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent's main thread ends (Linux; elsewhere nothing).

    The binding is to the direct parent alone, so it must be made at each link of the chain: supervisor,
    fork server, worker.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def watch(commands: IO[bytes], stop: Callable[[], None]) -> None:
    """Listen to the supervisor from a thread: ``stop`` on its word, the end of the pipe ends us."""

    def listen() -> None:
        for line in commands:
            if line == STOP:
                stop()
        os._exit(1)

    threading.Thread(target=listen, name="lifeline", daemon=True).start()
