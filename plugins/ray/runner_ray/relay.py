"""What runs on a node: an agent's process, and its pipes. It passes bytes on, and understands none of them.

The class is sent to the nodes as it stands, so that they need Ray and runner but not this plugin; it uses the
standard library alone.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from typing import IO

REPLY = 8 << 20  # bytes that one answer has at most: a store may be small
WAIT = 1.0  # seconds that an answer waits for something to say
HELD = 64  # reads of the agent's output that are held: an agent that is quicker than the run waits
READ = 256 << 10
ENDING = 5.0  # seconds for an agent to end by itself
LAST_WORDS = 2000  # characters


class Relay:
    """One agent. ``send`` and ``poll`` are called in threads of their own."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the agent
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**inherited, **environment},
            bufsize=0,
        )
        self._output: queue.Queue[bytes | None] = queue.Queue(HELD)
        threading.Thread(target=self._read, daemon=True).start()

    def ready(self) -> bool:
        """Whether it runs: answered when the actor has its place."""
        return self._process.poll() is None

    def send(self, data: bytes) -> None:
        """Write to the agent."""
        pipe, left = self._process.stdin, memoryview(data)
        while left and pipe is not None:
            left = left[pipe.write(left) or 0 :]

    def poll(self) -> bytes | None:
        """What the agent has said, or nothing after a second; None when it has ended."""
        try:
            found = self._output.get(timeout=WAIT)
        except queue.Empty:
            return b""
        if found is None:
            self._output.put(None)
            return None
        parts = [found]
        size = len(found)
        while size < REPLY and not self._output.empty():
            more = self._output.get()
            if more is None:
                self._output.put(None)
                break
            parts.append(more)
            size += len(more)
        return b"".join(parts)

    def last_words(self) -> str:
        """The end of what the agent printed."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - LAST_WORDS))
        return self._errors.read().decode(errors="replace").strip()

    def close(self) -> None:
        """End the agent: at the end of its input, or else by force."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        pipe = self._process.stdout
        while pipe is not None and (data := pipe.read(READ)):
            self._output.put(data)
        self._output.put(None)
