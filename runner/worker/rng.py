"""Random numbers that a stage draws without a generator of its own: they depend on its item alone."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

_TORCH, _DEVICE, _NUMPY, _PYTHON = "torch", "device", "numpy", "python"


def seed_everything(key: str, device: torch.device) -> None:
    """Begin anew for an item of this key."""
    seed = int(key[:16], 16)
    random.seed(seed)
    # not torch.manual_seed: it remembers each call, with its traceback, for devices that may come to be used
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is what careless code draws from


def state(device: torch.device) -> dict[str, torch.Tensor]:
    """Where the generators are now, as tensors of bytes."""
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state())  # noqa: NPY002
    told = {
        _TORCH: torch.get_rng_state(),
        _NUMPY: _bytes([name, keys.tolist(), *rest]),
        _PYTHON: _bytes(random.getstate()),
    }
    if device.type == "cuda":
        told[_DEVICE] = torch.cuda.get_rng_state(device)
    return told


def restore(told: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Go on from where :func:`state` was asked."""
    torch.set_rng_state(told[_TORCH])
    np.random.set_state(tuple(_value(told[_NUMPY])))  # noqa: NPY002
    version, internal, gauss = _value(told[_PYTHON])
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda":
        torch.cuda.set_rng_state(told[_DEVICE], device)


def _bytes(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(data: torch.Tensor) -> Any:
    return json.loads(bytes(data.tolist()))
