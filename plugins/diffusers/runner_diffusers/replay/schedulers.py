"""An item's own scheduler, whose steps are reported, and what changes of it while it steps."""

from __future__ import annotations

import copy
from functools import partial, update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from runner_diffusers.replay.values import UnsupportedValueError, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    OnCall = Callable[[Any, str, Callable[[], Any]], Any]
    """Receives the scheduler, the method's name and the call; returns what the pipeline gets."""

NO_STATE = ("_internal_dict", "noise_sampler")
"""Attributes that are not saved: the config, and a Brownian tree, which its seed makes anew."""


REPORTED = ("step", "set_timesteps")


def own_scheduler(scheduler: Any, on_call: OnCall) -> Any:
    """A new scheduler of the same class and config that reports its calls; its copies do, too.

    Its class stays as it is: pipelines ask for it.
    """
    own = type(scheduler).from_config(scheduler.config)
    report_calls(own, on_call)
    return own


def is_scheduler(component: Any) -> bool:
    """Whether it steps through timesteps."""
    return all(hasattr(component, name) for name in REPORTED)


def report_calls(scheduler: Any, on_call: OnCall) -> None:
    """Let a scheduler report its steps and new timesteps, if it does not yet."""
    for name in REPORTED:
        if not isinstance(getattr(scheduler, name), _Reported):
            setattr(scheduler, name, _Reported(scheduler, name, on_call))


class _Reported:
    """A method of one scheduler that reports its calls, in place of the class's."""

    def __init__(self, scheduler: Any, name: str, on_call: OnCall) -> None:
        self._scheduler = scheduler
        self._name = name
        self._on_call = on_call
        self._method = MethodType(getattr(type(scheduler), name), scheduler)
        update_wrapper(self, self._method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._on_call(self._scheduler, self._name, partial(self._method, *args, **kwargs))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reported:
        """The method of a scheduler's copy, which is being made."""
        return _Reported(memo.get(id(self._scheduler), self._scheduler), self._name, self._on_call)


def attributes(scheduler: Any) -> dict[str, Any]:
    """A copy of a scheduler's attributes, to compare with later."""
    return copy.deepcopy(_state(scheduler))


def changed(scheduler: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that differ from those before the first step."""
    return {
        name: copy.copy(value)
        for name, value in _state(scheduler).items()
        if name not in before or not _same(value, before[name])
    }


def _state(scheduler: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(scheduler).items()
        if not name.startswith(NO_STATE) and not isinstance(value, _Reported)
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
