"""The global random generators: seeded from an item's key, saved in and restored from checkpoints.

A seed in a manifest is a parameter: ``manifest/items.py`` gives it to items, and the stage's code uses it.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from runner.accelerator.backends import backend_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_TORCH, _DEVICE, _NUMPY, _PYTHON = "torch", "device", "numpy", "python"


def seed_everything(key: str, device: torch.device) -> None:
    """Seed all global generators from an item's key."""
    seed = int(key[:16], 16)
    random.seed(seed)
    # not torch.manual_seed: it queues each call, with a traceback, for devices that are not initialised
    torch.default_generator.manual_seed(seed)
    generator = backend_of(device).generator()
    if generator is not None:
        generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the legacy generator


def state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the generators, as uint8 tensors by name."""
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state())  # noqa: NPY002
    states = {
        _TORCH: torch.get_rng_state(),
        _NUMPY: _bytes([name, keys.tolist(), *rest]),
        _PYTHON: _bytes(random.getstate()),
    }
    generator = backend_of(device).generator()
    if generator is not None:
        states[_DEVICE] = generator.get_state()
    return states


def restore(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restore states that :func:`state` returned."""
    torch.set_rng_state(states[_TORCH])
    np.random.set_state(tuple(_value(states[_NUMPY])))  # noqa: NPY002
    version, internal, gauss = _value(states[_PYTHON])
    random.setstate((version, tuple(internal), gauss))
    generator = backend_of(device).generator()
    if generator is not None:
        generator.set_state(states[_DEVICE])


def _bytes(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(data: torch.Tensor) -> Any:
    return json.loads(bytes(data.tolist()))
