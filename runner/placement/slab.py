"""Weights of a module side by side in one piece of memory, each at a multiple of 256 bytes.

On an accelerator, single allocations would leave gaps: the caching allocator reserves segments of 2 MiB or
more, up to 8 percent more than the weights of a model with many middle-sized ones. And one copy moves all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from runner.stream.blocks import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class _Part:
    """Tied weights, and where in the memory their one copy is."""

    weights: list[torch.Tensor]
    dtype: torch.dtype
    offset: int
    size: int

    def view(self, memory: torch.Tensor) -> torch.Tensor:
        weight = self.weights[0]
        # those of a copy: its own, unless they leave gaps
        strides = torch.empty_like(weight, device="meta").stride()
        flat = memory[self.offset : self.offset + self.size].view(self.dtype)
        return flat.as_strided(weight.shape, strides)


class Slab:
    """The layout of weights in ``size`` bytes of memory."""

    def __init__(
        self, weights: Iterable[torch.Tensor], dtype_of: Callable[[torch.Tensor], torch.dtype]
    ) -> None:
        """``dtype_of`` returns the dtype that a weight is to have there."""
        self._parts: dict[object, _Part] = {}
        self.size = 0
        for weight in weights:
            part = self._parts.get(identity(weight))
            if part is None:
                dtype = dtype_of(weight)
                part = _Part([], dtype, self.size, weight.numel() * dtype.itemsize)
                self._parts[identity(weight)] = part
                self.size += aligned(part.size)
            part.weights.append(weight)

    def fill(self, memory: torch.Tensor) -> None:
        """Copy the weights, from where they are now, into memory of any device."""
        for part in self._parts.values():
            part.view(memory).copy_(part.weights[0].detach())

    def bind(self, memory: torch.Tensor) -> None:
        """Make the weights' tensors views of the memory."""
        for part in self._parts.values():
            view = part.view(memory)
            for weight in part.weights:
                weight.data = view


def identity(weight: torch.Tensor) -> object:
    """Equal for tensors that are the same numbers in memory, as tied weights are."""
    if weight.numel() == 0 or weight.device.type == "meta":
        return id(weight)
    return weight.data_ptr(), weight.shape, weight.stride(), weight.dtype
