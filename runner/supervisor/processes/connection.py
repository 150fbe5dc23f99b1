"""The connection to a worker: sends its job, receives its events, samples its memory, waits for its exit."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import PluginError
from runner.events import Event
from runner.machine.active_time import CLOCK, active_seconds
from runner.machine.ram import is_suspended, ram_of
from runner.protocol import Job, Measuring, ModelCheck, MoreItems, Prepare, Stop, decode_event, send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.supervisor.processes.spawn import Process

SAMPLE_SECONDS = 0.05
GRACE_SECONDS = 10.0  # for a worker to exit after its last event
_TICK = object()
SEND_SECONDS = 1.0  # for the sending thread to end after the worker has exited


@dataclass
class Memory:
    """Bytes of RAM that a worker holds now, and its peak."""

    now: int = 0
    peak: int = 0

    def sample(self, pid: int) -> None:
        self.now = ram_of(pid) or self.now  # 0 while a process exits
        self.peak = max(self.peak, self.now)


class WorkerConnection:
    """Sends a job or a model check to a worker, and receives its events until it exits."""

    def __init__(self, process: Process, job: Job | ModelCheck | Measuring | Prepare) -> None:
        self._process = process
        self._events: queue.SimpleQueue[Event | object | None] = queue.SimpleQueue()
        self.memory = Memory()
        self.exit_code: int | None = None
        self.suspended = 0
        """Number of samples in a row that found the worker suspended."""
        self._unsent = ""
        self._outgoing: queue.SimpleQueue[MoreItems | Stop | None] = queue.SimpleQueue()
        # a worker that is still importing does not read yet, and a pipe holds 64 KiB
        self._sender = threading.Thread(target=self._send, args=(job,), daemon=True)
        self._sender.start()
        threading.Thread(target=self._listen, daemon=True).start()

    def events(self) -> Iterator[Event | None]:
        """Yields the worker's events, and None every 50 ms as a tick for the caller's checks.

        Ends when the worker has exited: ``exit_code`` is set then.

        Raises:
            PluginError: the stage has objects that cannot be pickled.

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
                # a child of the worker may keep the pipe open after the worker has exited; its last events
                # may arrive after its exit was seen, so wait once more
                if ended:
                    break
                ended = self._process.poll() is not None
                continue
            if event is None:
                break
            yield event if isinstance(event, Event) else None
        CLOCK.hold(False)
        self.exit_code = self._wait()
        self._process.kill()  # its children too
        if self.exit_code is None:
            self.exit_code = self._wait()
        self._close_commands()
        if self._unsent:
            raise PluginError(f"the stage cannot be pickled to be sent to its worker: {self._unsent}")

    def ask_to_stop(self) -> None:
        """Ask the worker to stop after its current step."""
        self.send(Stop())

    def send(self, message: MoreItems | Stop) -> None:
        """Send what follows the job; returns at once."""
        self._outgoing.put(message)

    def wake(self) -> None:
        """Have :meth:`events` yield None at once. Called from any thread."""
        self._events.put(_TICK)

    def kill(self) -> None:
        self._process.kill()

    def _close_commands(self) -> None:
        """Close our end of the pipe, unless the job is still written to a child that holds the other end."""
        self._outgoing.put(None)
        self._sender.join(SEND_SECONDS)
        if not self._sender.is_alive():
            with contextlib.suppress(OSError):  # unread bytes are lost
                self._process.commands.close()

    def _sample(self) -> None:
        """Sample the worker's memory, and stop the clock while it is suspended."""
        self.memory.sample(self._process.pid)
        suspended = is_suspended(self._process.pid)
        CLOCK.hold(suspended)
        self.suspended = self.suspended + 1 if suspended else 0

    def _wait(self) -> int | None:
        """The exit code; None if it has not exited within the grace period."""
        deadline = active_seconds() + GRACE_SECONDS
        while active_seconds() < deadline:
            code = self._process.wait(SAMPLE_SECONDS)
            if code is not None:
                return code
        return None

    def _send(self, job: Job | ModelCheck | Measuring | Prepare) -> None:
        try:
            job.send(self._process.commands)
            while (message := self._outgoing.get()) is not None:
                send(message, self._process.commands)
        except OSError:
            return  # it died before it read that: the exit code is reported
        except Exception as error:
            self._unsent = f"{type(error).__name__}: {error}"
            self._process.kill()

    def _listen(self) -> None:
        try:
            with self._process.events as lines:
                for line in lines:
                    if not line.endswith(b"\n"):  # a killed worker may leave half a line
                        continue
                    if (event := decode_event(line)) is not None:
                        self._events.put(event)
        finally:
            self._events.put(None)
