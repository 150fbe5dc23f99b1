"""``resident``: weights read into memory of our own, on the device, for as long as the worker lives."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from runner.placement.library import from_pretrained

if TYPE_CHECKING:
    from pathlib import Path


def load(cls: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The component, wholly on the device."""
    component = from_pretrained(cls, folder, dtype)
    if not isinstance(component, torch.nn.Module):
        return component
    component.eval().requires_grad_(requires_grad=False)
    if device.type == "cpu":
        own_weights(component)
        return component
    return component.to(device)


def own_weights(module: torch.nn.Module) -> None:
    """Copy every weight out of the mapped file, one by one.

    The libraries map files into memory: weights then lie at offsets of 8 bytes, where float32 results differ
    by 1e-6 from those at torch's own 64-byte boundaries, and their pages come and go with the page cache.
    """
    with torch.no_grad():
        for tensor in chain(module.parameters(), module.buffers()):
            tensor.data = tensor.data.clone()
