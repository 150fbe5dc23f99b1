"""What torch and others keep by thread: greenlets share it, and each call must find its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class State:
    """Grad mode, autocast and the default generators; inference mode is held throughout."""

    grad: bool
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    cache: bool
    generators: tuple[Any, ...]

    @staticmethod
    def now() -> State:
        kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        return State(
            torch.is_grad_enabled(),
            tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds),
            torch.is_autocast_cache_enabled(),
            (
                torch.get_rng_state(),
                torch.cuda.get_rng_state() if "cuda" in kinds else None,
                random.getstate(),
                np.random.get_state(legacy=False),  # noqa: NPY002 - the one that careless code draws from
            ),
        )

    def restore(self) -> None:
        torch.set_grad_enabled(self.grad)
        for kind, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(self.cache)
        of_torch, of_cuda, of_python, of_numpy = self.generators
        torch.set_rng_state(of_torch)
        if of_cuda is not None:
            torch.cuda.set_rng_state(of_cuda)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
