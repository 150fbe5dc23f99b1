"""Measures activations in a child process, within a time limit for each size."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runner.api import Activations
from runner.events import Measured, Ready
from runner.machine.active_time import active_seconds
from runner.machine.ram import computed_seconds
from runner.plan.measured import MEASURER, TransientFailure
from runner.protocol import Measuring
from runner.supervisor.processes.connection import WorkerConnection
from runner.supervisor.processes.spawn import Spawner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.plan.measured import Measurement

SECONDS = 30.0  # of CPU time for one size, and twice as long by the clock: the CPU may be busy
STARTING = 120.0  # for the child to import the libraries


class Listener(Protocol):
    """Tells the user."""

    def measuring(self, stage: str, sizes: int) -> None:
        """``sizes`` item sizes of a stage are about to be measured."""

    def not_measured(self, stage: str, reason: str) -> None:
        """One size could not be measured: the plan goes without it."""


@contextmanager
def measuring(listener: Listener) -> Iterator[None]:
    """Measure what plans inside need, and tell ``listener``."""
    token = MEASURER.set(ChildMeasurer(listener))
    try:
        yield
    finally:
        MEASURER.reset(token)


class ChildMeasurer:
    """Measures in child processes: one for all sizes that are asked for together."""

    def __init__(self, listener: Listener, seconds: float | None = None) -> None:
        self._listener = listener
        self._seconds = SECONDS if seconds is None else seconds
        self._reported: set[str] = set()

    def measure(self, todo: Sequence[Measurement]) -> Mapping[str, Activations | str]:
        found: dict[str, Activations | str] = {}
        left = list(todo)
        while left:  # a child that failed or took too long has ended: the rest needs another one
            results = self._in_child(left)
            found |= {one.digest: result for one, result in zip(left, results, strict=False)}
            left = left[max(1, len(results)) :]
        return found

    def failed(self, measurement: Measurement, reason: str) -> None:
        if measurement.digest not in self._reported:
            self._reported.add(measurement.digest)
            self._listener.not_measured(measurement.stage, reason)

    def _in_child(self, todo: Sequence[Measurement]) -> list[Activations | str]:
        """The results of the first ones; the last may be a failure that ended the child."""
        with tempfile.TemporaryDirectory(prefix="runner-") as folder:
            process = Spawner(threads=1).start(Path(folder, "measure.log"))
            connection = WorkerConnection(process, Measuring(tuple(todo)))
            results: list[Activations | str] = []
            limit: _Limit | None = _Limit(process.pid, inf, STARTING)
            try:
                for event in connection.events():
                    if limit is None:  # killed: what it had sent before is of a size that has failed
                        continue
                    if isinstance(event, Ready):
                        self._tell(todo[0].stage, todo)
                    elif isinstance(event, Measured):
                        results.append(event.error or Activations(**(event.activations or {})))
                        self._tell_next(todo, len(results))
                    elif limit.is_over:
                        results.append(limit.message)
                        limit = None
                        connection.kill()
                    if event is not None:
                        limit = _Limit(process.pid, self._seconds, 2 * self._seconds)
            finally:
                connection.kill()
                with contextlib.suppress(OSError):  # it may have died while reading its request
                    process.commands.close()
        if not results:
            ended = f"its process ended with exit code {connection.exit_code}"
            results.append(TransientFailure(ended) if connection.exit_code == -signal.SIGKILL else ended)
        return results

    def _tell(self, stage: str, todo: Sequence[Measurement]) -> None:
        self._listener.measuring(stage, sum(one.stage == stage for one in todo))

    def _tell_next(self, todo: Sequence[Measurement], done: int) -> None:
        """Tell that the next stage is measured, when it begins."""
        if done < len(todo) and todo[done].stage != todo[done - 1].stage:
            self._tell(todo[done].stage, todo)


class _Limit:
    """Limits from now on: of seconds that a process computes, and of seconds by the clock."""

    def __init__(self, pid: int, computing: float, waiting: float) -> None:
        self._computing = computing
        self._pid = pid
        self._computed = computed_seconds(pid)
        self._end = active_seconds() + waiting

    @property
    def is_over(self) -> bool:
        return computed_seconds(self._pid) - self._computed > self._computing or active_seconds() > self._end

    @property
    def message(self) -> str:
        if self._computing == inf:
            return TransientFailure(f"its process took more than {STARTING:g} s to start")
        return f"it took more than {self._computing:g} s"
