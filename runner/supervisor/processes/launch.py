"""Chooses how workers are started: forked from a server, or spawned.

Forking a process with Apple's frameworks loaded is unsafe: workers are forked only on Linux. A worker for an
accelerator is forked too, as the server imports libraries without using a device; if a forked worker cannot
use it all the same, workers for that device are spawned from then on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from runner.supervisor.processes.forked import ForkServer
from runner.supervisor.processes.spawn import Spawner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.pipeline.binding import Pipeline
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.processes.spawn import Launcher

CAN_FORK = sys.platform == "linux"


class Launchers:
    """The launchers of a run: a fork server per thread count, or spawners where forks cannot be used."""

    def __init__(self, pipeline: Pipeline, directory: RunDirectory, inherit: Sequence[int]) -> None:
        self._specs = [stage.spec for stage in pipeline.stages]
        self._directory = directory
        self._inherit = inherit
        self._started: dict[tuple[bool, int], Launcher] = {}
        self._spawn_only: set[str] = set()

    def forks(self, device: str) -> bool:
        """Whether workers for the device are forked."""
        return CAN_FORK and device not in self._spawn_only

    def spawn_only(self, device: str) -> None:
        """Fork no more workers for a device: one could not use it."""
        self._spawn_only.add(device)

    def get(self, device: str, threads: int) -> Launcher:
        """The launcher for a device and number of threads, started at the first call."""
        fork = self.forks(device)
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
