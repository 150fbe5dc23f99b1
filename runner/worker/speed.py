"""Measures a device: ``python -m runner.worker.speed DEVICE`` prints JSON.

``compute`` has operations a second by dtype (on the CPU, of all threads together), ``bus`` bytes a second
from pinned memory to the device (null on the CPU). It is a separate process because it imports torch.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from runner.accelerator.backends import backend_of
from runner.accelerator.backends.generic import AcceleratorBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.accelerator.backends import Backend

WIDTH = 3072  # of FLUX's layers
DTYPES = ("float32", "bfloat16", "float16")
SECONDS = 0.3  # for each measurement, or one round of it
SENT = 256 << 20  # bytes


def measure(name: str) -> dict[str, Any]:
    """The rates of a device, given torch's name of it.

    ``context`` are the bytes of an accelerator's memory that a process holds besides tensors.
    """
    backend = backend_of(name)
    backend.check()
    with torch.inference_mode():
        compute = {dtype: _operations(backend, getattr(torch, dtype)) for dtype in DTYPES}
        if not isinstance(backend, AcceleratorBackend):
            return {"compute": compute, "bus": None, "context": None}
        return {"compute": compute, "bus": _bus(backend), "context": backend.context_size()}


def _operations(backend: Backend, dtype: torch.dtype) -> float:
    """Operations a second of a linear layer, which has two per weight and token."""
    tokens = backend.tokens_to_measure
    weight = torch.ones(WIDTH, WIDTH, device=backend.device, dtype=dtype)
    hidden = torch.ones(tokens, WIDTH, device=backend.device, dtype=dtype)
    return 2 * WIDTH**2 * tokens * _rounds(backend, lambda: torch.nn.functional.linear(hidden, weight))


def _bus(backend: AcceleratorBackend) -> float:
    sent = min(SENT, backend.total_memory() // 8)
    pinned = backend.pinned(sent)
    arrived = torch.empty(sent, dtype=torch.uint8, device=backend.device)
    return sent * _rounds(backend, lambda: arrived.copy_(pinned, non_blocking=True))


def _rounds(backend: Backend, once: Callable[[], object]) -> float:
    """Calls a second, from the fastest of several: other processes may slow some down."""
    _timed(backend, once)  # warm-up: libraries initialise
    best, deadline = float("inf"), time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < deadline:
        best = min(best, _timed(backend, once))
    return 1 / best


def _timed(backend: Backend, once: Callable[[], object]) -> float:
    began = time.perf_counter()
    once()
    backend.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))  # noqa: T201
