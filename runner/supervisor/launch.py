"""Chooses how workers are started: forked from a server, or spawned.

CUDA does not survive a fork, and forking a process with Apple's frameworks loaded is unsafe: workers are
forked only on Linux, for the CPU.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from runner.supervisor.forked import ForkServer
from runner.supervisor.spawn import Spawner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.pipeline.binding import Pipeline
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.spawn import Launcher

CAN_FORK = sys.platform == "linux"


class Launchers:
    """The launchers of a run: a fork server per thread count for stages on the CPU, else spawners."""

    def __init__(self, pipeline: Pipeline, directory: RunDirectory, inherit: Sequence[int]) -> None:
        self._specs = [stage.spec for stage in pipeline.stages]
        self._directory = directory
        self._inherit = inherit
        self._started: dict[tuple[bool, int], Launcher] = {}

    def get(self, device: str, threads: int) -> Launcher:
        """The launcher for a device and number of threads, started at the first call."""
        fork = CAN_FORK and device == "cpu"
        launcher = self._started.get((fork, threads))
        if launcher is None or not launcher.usable:
            if launcher is not None:
                launcher.close()
            launcher = self._fork_server(threads) if fork else Spawner(threads, self._inherit)
            self._started[fork, threads] = launcher
        return launcher

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self._started.values():
            launcher.close()

    def _fork_server(self, threads: int) -> Launcher:
        # modules of parameter models are light: the supervisor imports them too
        modules = [spec.params.partition(":")[0] for spec in self._specs if spec.params]
        modules += [module for spec in self._specs for module in spec.preload]
        return ForkServer(modules, threads, self._directory.log("forkserver"), self._inherit)
