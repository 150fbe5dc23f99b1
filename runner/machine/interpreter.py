"""How new interpreters of runner are started: their command and their environment."""

from __future__ import annotations

import os
import sys

from runner.accelerator.names import BUS_ORDER
from runner.machine import malloc
from runner.redact import SECRETS

WORKER_ENVIRONMENT = {
    **malloc.ENVIRONMENT,
    # the supervisor fetches models: workers stay offline
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # for classes of plugins that load pickles: no code may be loaded with the weights
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # cuda:N is the N-th card here too
    **BUS_ORDER,
    # looking for cards must not initialise the driver: a fork could not use it
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # a fixed size: with less memory cuBLAS would take another algorithm, and give other low bits
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def environment(threads: int) -> dict[str, str]:
    """A worker's environment variables; it imports from the same places as the supervisor."""
    script = os.path.dirname(sys.argv[0])  # noqa: PTH120 - spelled as in sys.path
    places = [os.path.abspath(place) for place in sys.path if place != script]  # noqa: PTH100
    own = {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": str(threads)}
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {**inherited, **WORKER_ENVIRONMENT, **own}


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of runner."""
    # -P: do not import from the working directory, unless the supervisor does
    return [sys.executable, "-P", "-m", module, *arguments]
