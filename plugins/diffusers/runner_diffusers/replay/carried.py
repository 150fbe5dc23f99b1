"""What a loop keeps from one iteration to the next outside of the latents, schedulers and guiders.

Such as a denoiser's caches of keys and values, or a running average of its results in a variable of the
pipeline's call. A loop that has such a state cannot be continued from a checkpoint, which does not hold it.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

PLAIN = (bool, int, float, str, bytes, torch.dtype, torch.device, torch.Generator, np.ndarray, np.generic)
"""Types of arguments that hold no state, besides tensors, pictures and containers of these."""


PIPELINES = "diffusers.pipelines."
"""Beginning of the names of modules with pipelines."""


class CarriedState:
    """Whether a denoiser is given what a call of an earlier iteration had, or a local object changes."""

    def __init__(self) -> None:
        self.found = False
        """Whether there was any."""
        self._earlier: dict[int, weakref.ref[Any]] = {}
        self._now: dict[int, weakref.ref[Any]] = {}
        self._local: dict[str, tuple[weakref.ref[Any], list[tuple[int, int]]]] = {}
        """Local objects at the last border, and the tensors that they had."""

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

    def local(self, variables: Mapping[str, Any]) -> None:
        """Look at the variables of the pipeline's call, at the border of an iteration."""
        found = {}
        for name, value in variables.items():
            if name == "self" or not _may_keep_state(value):
                continue
            tensors = [one for one in vars(value).values() if isinstance(one, torch.Tensor)]
            versions = [(id(one), 0 if one.is_inference() else one._version) for one in tensors]  # noqa: SLF001
            before, had = self._local.get(name, (lambda: None, []))
            self.found = self.found or (before() is value and had != versions)
            found[name] = weakref.ref(value), versions
        self._local = found

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


def _may_keep_state(value: Any) -> bool:
    """Whether it is an object that is neither a model, a scheduler nor a guider: theirs is kept elsewhere."""
    is_object = hasattr(value, "__dict__") and hasattr(type(value), "__weakref__")
    is_known = isinstance(value, torch.nn.Module | torch.Tensor | type) or hasattr(value, "set_timesteps")
    return is_object and not is_known and not hasattr(value, "prepare_inputs")


def locals_of_call() -> dict[str, Any]:
    """The variables of the pipeline's `__call__` that is running in this thread; none outside of one."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_globals["__name__"].startswith(PIPELINES):
            found = dict(frame.f_locals)
            if sys.version_info < (3, 13):  # the frame would keep these objects alive
                frame.f_locals.clear()
            return found
        frame = frame.f_back
    return {}
