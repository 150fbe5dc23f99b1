"""An item's own scheduler, whose steps are reported, and what changes of it while it steps."""

from __future__ import annotations

import copy
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from runner_diffusers.replay.values import UnsupportedValueError, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    OnStep = Callable[[Any, Callable[[], Any]], Any]
    """Receives the scheduler and its step, as a call; returns what the pipeline gets."""

NO_STATE = ("_internal_dict", "_replay", "noise_sampler")
"""Attributes that are not saved: the config, our own, and a Brownian tree, which its seed makes anew."""


def own_scheduler(scheduler: Any, on_step: OnStep) -> Any:
    """A new scheduler of the same class and config that reports its steps; its copies do, too."""
    cls: Any = type(scheduler)
    own = _reporting(cls).from_config(scheduler.config)
    own.__dict__["_replay"] = _Uncopied(on_step)
    return own


class _Uncopied:
    """A callable that copies of its owner share."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __deepcopy__(self, _memo: Any) -> _Uncopied:
        return self


@cache
def _reporting(cls: Any) -> Any:
    @wraps(cls.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_replay"].call(self, partial(cls.step, self, *args, **kwargs))

    # schedulers compare by identity: several in one pipeline may have equal configs
    body = {"step": step, "__eq__": lambda a, b: a is b, "__hash__": id}
    return type(
        cls.__name__, (cls,), {**body, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    )


def attributes(scheduler: Any) -> dict[str, Any]:
    """A copy of a scheduler's attributes, to compare with later."""
    found = {name: value for name, value in vars(scheduler).items() if not name.startswith(NO_STATE)}
    return copy.deepcopy(found)


def changed(scheduler: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that differ from those before the first step."""
    now = {name: value for name, value in vars(scheduler).items() if not name.startswith(NO_STATE)}
    return {
        name: copy.copy(value)
        for name, value in now.items()
        if name not in before or not _same(value, before[name])
    }


def guider_state(guider: Any) -> dict[str, Any]:
    """The attributes of a guider that can be saved, such as the momentum of adaptive guidance."""
    found = {}
    for name, value in vars(guider).items():
        part = vars(value) if hasattr(value, "__dict__") and not isinstance(value, torch.Tensor) else None
        content = {f"{name}.{inner}": one for inner, one in part.items()} if part else {name: value}
        for path, one in content.items():
            if not path.startswith("_internal") and _can_be_saved(one):
                found[path] = copy.deepcopy(one)
    return found


def restore_guider(guider: Any, state: Mapping[str, Any]) -> None:
    for path, value in state.items():
        owner, _, name = path.rpartition(".")
        setattr(getattr(guider, owner) if owner else guider, name, value)


def _can_be_saved(value: Any) -> bool:
    try:
        pack(value, lambda _tensor: "")
    except UnsupportedValueError:
        return False
    return True


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
