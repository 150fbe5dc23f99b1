"""``resident``: weights read into memory of our own, on the device, for as long as the worker lives."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from runner.placement.library import Opened


def load(opened: Opened, device: torch.device) -> torch.nn.Module:
    """The component, wholly on the device: each weight goes there straight from its file."""
    module = opened.module
    with torch.no_grad():
        for tensor in chain(module.parameters(), module.buffers()):
            tensor.data = opened.own(tensor, device)
    return module
