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

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 3072  # of FLUX's layers
TOKENS = {"cpu": 64, "cuda": 4096}  # enough for the device's full rate
DTYPES = ("float32", "bfloat16", "float16")
SECONDS = 0.3  # for each measurement, or one round of it
SENT = 256 << 20  # bytes


def measure(name: str) -> dict[str, Any]:
    """The rates of a device, given torch's name of it."""
    device = torch.device(name)
    with torch.inference_mode():
        compute = {dtype: _operations(device, getattr(torch, dtype)) for dtype in DTYPES}
        return {"compute": compute, "bus": _bus(device) if device.type == "cuda" else None}


def _operations(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a linear layer, which has two per weight and token."""
    tokens = TOKENS[device.type]
    weight = torch.ones(WIDTH, WIDTH, device=device, dtype=dtype)
    hidden = torch.ones(tokens, WIDTH, device=device, dtype=dtype)
    return 2 * WIDTH**2 * tokens * _rounds(device, lambda: torch.nn.functional.linear(hidden, weight))


def _bus(device: torch.device) -> float:
    pinned = torch.empty(SENT, dtype=torch.uint8, pin_memory=True)
    arrived = torch.empty(SENT, dtype=torch.uint8, device=device)
    return SENT * _rounds(device, lambda: arrived.copy_(pinned, non_blocking=True))


def _rounds(device: torch.device, once: Callable[[], object]) -> float:
    """Calls a second, from the fastest of several: other processes may slow some down."""
    _timed(device, once)  # warm-up: libraries initialise
    best, deadline = float("inf"), time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < deadline:
        best = min(best, _timed(device, once))
    return 1 / best


def _timed(device: torch.device, once: Callable[[], object]) -> float:
    began = time.perf_counter()
    once()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))  # noqa: T201
