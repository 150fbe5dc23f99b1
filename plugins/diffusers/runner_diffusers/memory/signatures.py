"""Signatures of calls: two calls of the same signature take as much memory, and return the same shapes."""

from __future__ import annotations

from typing import Any

import torch

PLAIN = (bool, int, str, type(None), torch.dtype, torch.device)
NUMBERING = ("idx", "index", "_id")
"""Endings of attributes that number a block among its neighbours."""


def signature(value: Any) -> Any:
    """What is the same for values of the same shapes; numbers with a fraction are left out."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), tuple(value.stride()))
    if isinstance(value, float):
        return "float"
    if isinstance(value, PLAIN):
        return str(value)
    if isinstance(value, list | tuple):
        return tuple(signature(one) for one in value)
    if isinstance(value, dict):
        return tuple((str(name), signature(one)) for name, one in value.items())
    return type(value).__name__


def is_plain(value: Any) -> bool:
    """Whether a value has no part that the called code may fill, or that no signature describes."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return isinstance(value, (torch.Tensor, float, *PLAIN))


def attributes(module: torch.nn.Module) -> Any:
    """The settings of one module that are no tensors: tiles, the kind of an attention."""
    return tuple(
        (name, str(value))
        for name, value in sorted(vars(module).items())
        if isinstance(value, bool | int | float | str) and not name.endswith(NUMBERING)
    )


def kind(module: torch.nn.Module) -> Any:
    """What a module with others in it computes: their classes and settings, and the shapes of the weights."""
    parts = tuple((type(part).__name__, attributes(part)) for part in module.modules())
    weights = tuple((name, str(w.dtype), tuple(w.shape)) for name, w in module.named_parameters())
    return parts, weights
