"""Listening to a worker: its events as they come, its memory twenty times a second, its end."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import PluginError
from runner.machine.active_time import CLOCK, active_seconds
from runner.machine.ram import is_suspended, ram_of
from runner.protocol import STOP, Job, ModelCheck, decode_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.events import Event
    from runner.supervisor.spawn import Process

SAMPLE_SECONDS = 0.05
GRACE_SECONDS = 10.0  # for a worker to exit after it has said all
SEND_SECONDS = 1.0  # for what is being sent to fail when the worker has gone


@dataclass
class Memory:
    """Bytes of RAM that the worker holds now, and held at most."""

    now: int = 0
    peak: int = 0

    def sample(self, pid: int) -> None:
        self.now = ram_of(pid) or self.now  # one that is just ending holds nothing, which says nothing
        self.peak = max(self.peak, self.now)


class WorkerConnection:
    """One worker's job from sending it to the worker's exit."""

    def __init__(self, process: Process, job: Job | ModelCheck) -> None:
        self._process = process
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.memory = Memory()
        self.exit_code: int | None = None
        self.suspended = 0
        """Samples in a row in which the worker was suspended."""
        self._unsent = ""
        # a worker that is still importing does not read yet, and a pipe holds 64 KiB
        self._sender = threading.Thread(target=self._send, args=(job,), daemon=True)
        self._sender.start()
        threading.Thread(target=self._listen, daemon=True).start()

    def events(self) -> Iterator[Event | None]:
        """The worker's events; None at least twenty times a second, for who wants to look around.

        Ends when the worker has exited; ``exit_code`` is set then.

        Raises:
            PluginError: the stage's own objects cannot be sent to another process.

        """
        sampled, ended = 0.0, False
        while True:
            if time.monotonic() - sampled >= SAMPLE_SECONDS:
                self._sample()
                sampled = time.monotonic()
                yield None
            try:
                event = self._events.get(timeout=SAMPLE_SECONDS)
            except queue.Empty:
                # a child of the worker may hold the pipe open for longer than the worker lives; what the
                # worker said last may arrive after its end was seen, so that is waited for once more
                if ended:
                    break
                ended = self._process.poll() is not None
                continue
            if event is None:
                break
            yield event
        CLOCK.hold(False)
        self.exit_code = self._wait()
        self._process.kill()  # also what it started and left behind
        if self.exit_code is None:
            self.exit_code = self._wait()
        self._close_commands()
        if self._unsent:
            raise PluginError(f"the stage cannot be pickled, to be sent to its worker: {self._unsent}")

    def ask_to_stop(self) -> None:
        """Have the worker end at its next step."""
        try:
            self._process.commands.write(STOP)
            self._process.commands.flush()
        except (OSError, ValueError):
            return  # it is ending anyway

    def kill(self) -> None:
        self._process.kill()

    def _close_commands(self) -> None:
        """Close our end of the pipe, unless the job is still written to it: a stray child may read it."""
        self._sender.join(SEND_SECONDS)
        if not self._sender.is_alive():
            with contextlib.suppress(OSError):  # what it had not read is lost
                self._process.commands.close()

    def _sample(self) -> None:
        """Look at the worker's memory, and whether it is suspended: no time passes then."""
        self.memory.sample(self._process.pid)
        suspended = is_suspended(self._process.pid)
        CLOCK.hold(suspended)
        self.suspended = self.suspended + 1 if suspended else 0

    def _wait(self) -> int | None:
        """The exit code, None if there is none within the time of grace."""
        deadline = active_seconds() + GRACE_SECONDS
        while active_seconds() < deadline:
            code = self._process.wait(SAMPLE_SECONDS)
            if code is not None:
                return code
        return None

    def _send(self, job: Job | ModelCheck) -> None:
        try:
            job.send(self._process.commands)
        except OSError:
            return  # it died before it read its job; its exit tells
        except Exception as error:
            self._unsent = f"{type(error).__name__}: {error}"
            self._process.kill()

    def _listen(self) -> None:
        try:
            with self._process.events as lines:
                for line in lines:
                    if not line.endswith(b"\n"):  # a worker that is killed may leave half a line
                        continue
                    if (event := decode_event(line)) is not None:
                        self._events.put(event)
        finally:
            self._events.put(None)
