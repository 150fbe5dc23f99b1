"""Ends a worker when its parent ends, however that happens."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING

from runner.protocol import MoreItems, Stop, messages

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bind_to_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent's main thread ends. Linux only.

    The binding is to the direct parent, so the fork server and the worker each call it.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)


def watch(
    commands: IO[bytes], stop: Callable[[], None], feed: Callable[[MoreItems], None] | None = None
) -> None:
    """Read the supervisor's messages in a thread: call ``stop`` or ``feed``, exit at the end of the pipe."""

    def listen() -> None:
        try:
            for message in messages(commands):
                if isinstance(message, Stop):
                    stop()
                elif feed is not None:
                    feed(message)
        finally:
            os._exit(1)

    threading.Thread(target=listen, name="parent-watch", daemon=True).start()
