"""The guide's executor, whose agents are processes here."""

from __future__ import annotations

import os
import select
import signal
import threading
from types import ModuleType

from away_plugin import AWAY
from waiting import wait_until


def test_an_agent_that_hangs_with_a_full_pipe_is_ended() -> None:
    away = ModuleType("away")
    exec(AWAY, away.__dict__)
    (channel,) = away.Processes(away.Params(nodes=1)).new()
    process = channel._popen
    os.kill(process.pid, signal.SIGSTOP)
    gone: list[BaseException] = []

    def send() -> None:
        try:
            channel.send(bytes(4 << 20))
        except (OSError, ValueError) as error:
            gone.append(error)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    wait_until(lambda: not select.select([], [process.stdin], [], 0)[1], 10, "the pipe is full")
    closing = threading.Thread(target=channel.close, daemon=True)
    closing.start()
    closing.join(10)
    try:
        assert process.poll() == -signal.SIGKILL
        sending.join(10)
        assert gone
    finally:
        process.kill()
        process.stdout.close()
