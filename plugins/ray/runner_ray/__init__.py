"""Ray for runner: stages run on the nodes of a Ray cluster."""

from __future__ import annotations

from runner.api import Executor, hookimpl

__version__ = "0.1.0"
RUNNER_API = 1


@hookimpl
def runner_executors() -> tuple[Executor, ...]:
    """The executor ``ray``. Ray itself is imported when a run connects."""
    return (
        Executor(
            "ray",
            connect="runner_ray.places:connect",
            params="runner_ray.params:Ray",
            summary="the nodes of a Ray cluster, an agent for each device",
        ),
    )
