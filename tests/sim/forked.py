"""Runs a function in a fresh process that can use the simulated devices.

The processes are forked from one that has imported PyTorch and the simulation and has used no device: a case
takes milliseconds to start, and none can see what another left behind.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent
POLICIES = ("eager", "late-copies", "late-compute", "late", "random")
"""How late streams may run: see README.md."""
PRELOADED = ["sim.preload"]


class Simulation:
    """Starts processes; one at a time."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(
            sys.path
        )  # before Python 3.12 the server has no other way to learn it
        try:
            forkserver.ensure_running()
        finally:
            os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)

    def call(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        policy: str = "eager",
        seed: int = 0,
        **environment: str,
    ) -> Any:
        """What ``function(*arguments)`` returns (or raises) there, with the policy and the environment set."""
        variables = {"SIM_POLICY": policy, "SIM_SEED": str(seed), **environment}
        with ProcessPoolExecutor(1, mp_context=self._context, max_tasks_per_child=1) as pool:
            return pool.submit(_call, variables, function, arguments).result()


def _call(variables: Mapping[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    os.environ.update(variables)
    import torch
    import torch_sim

    torch.set_num_threads(1)
    torch_sim.set_policy(variables["SIM_POLICY"], int(variables["SIM_SEED"]))
    with torch.inference_mode():
        return function(*arguments)
