"""What a denoiser keeps from one iteration to the next outside of the latents: caches of keys and values.

A loop that has such a state cannot be continued from a checkpoint, which holds latents and schedulers only.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = (bool, int, float, str, bytes, torch.dtype, torch.device, torch.Generator, np.ndarray, np.generic)
"""Types of arguments that hold no state, besides tensors, pictures and containers of these."""


class CarriedState:
    """Whether a call of a denoiser is given what one of an earlier iteration was given or returned."""

    def __init__(self) -> None:
        self.found = False
        """Whether there was any."""
        self._earlier: dict[int, weakref.ref[Any]] = {}
        self._now: dict[int, weakref.ref[Any]] = {}

    def next_iteration(self) -> None:
        """What calls had and returned until now is of an earlier iteration."""
        self._earlier |= self._now
        self._now = {}

    def given(self, value: Any) -> None:
        """Look at the arguments of a call."""
        for leaf in _leaves(value):
            known = self._earlier.get(id(leaf))
            self.found = self.found or (known is not None and known() is leaf)
            if not isinstance(leaf, torch.Tensor):
                self._now[id(leaf)] = weakref.ref(leaf)

    def returned(self, value: Any) -> None:
        """Remember what a call returned, without keeping it alive."""
        self._now |= {id(leaf): weakref.ref(leaf) for leaf in _leaves(value)}


def _leaves(value: Any) -> Iterator[Any]:
    """The tensors in a value, and the objects of types that may hold a state."""
    if isinstance(value, dict):
        yield from _leaves(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    elif value is not None and not isinstance(value, (*PLAIN, Image.Image)):
        yield value
