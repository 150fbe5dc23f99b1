"""Weights of a module side by side in one piece of memory, each at a multiple of 256 bytes.

On an accelerator, single allocations would leave gaps: the caching allocator reserves segments of 2 MiB or
more, up to 8 percent more than the weights of a model with many middle-sized ones. And one copy moves all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from runner.stream.blocks import aligned
from runner.stream.weights import Plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.placement.owned import OwnedWeight
    from runner.stream.weights import WeightSource


@dataclass(frozen=True)
class _Part:
    """A tensor of a weight, and where its copy is in the memory."""

    tensor: torch.Tensor
    dtype: torch.dtype
    offset: int

    @property
    def size(self) -> int:
        return self.tensor.numel() * self.dtype.itemsize

    def view(self, memory: torch.Tensor) -> torch.Tensor:
        # strides of a copy: the tensor's own, unless they leave gaps
        strides = torch.empty_like(self.tensor, device="meta").stride()
        flat = memory[self.offset : self.offset + self.size].view(self.dtype)
        return flat.as_strided(self.tensor.shape, strides)


class Slab:
    """The layout of weights in ``size`` bytes of memory."""

    def __init__(
        self, weights: Iterable[OwnedWeight], source_of: Callable[[torch.Tensor], WeightSource]
    ) -> None:
        """``source_of`` returns the source of a weight, with the dtype that it is to have there."""
        self._weights: list[tuple[OwnedWeight, WeightSource, list[_Part]]] = []
        self.size = 0
        for weight in weights:
            source = source_of(weight.weight)
            parts = [self._part(tensor, source) for tensor in source.tensors]
            self._weights.append((weight, source, parts))

    def _part(self, tensor: torch.Tensor, source: WeightSource) -> _Part:
        dtype = source.dtype if isinstance(source, Plain) else tensor.dtype
        part = _Part(tensor, dtype, self.size)
        self.size += aligned(part.size)
        return part

    def fill(self, memory: torch.Tensor) -> None:
        """Copy the weights, from where they are now, into memory of any device."""
        for _, _, parts in self._weights:
            for part in parts:
                part.view(memory).copy_(part.tensor.detach())

    def bind(self, memory: torch.Tensor) -> None:
        """Make the weights views of the memory."""
        for weight, source, parts in self._weights:
            views = [part.view(memory) for part in parts]
            weight.put(views[0] if isinstance(source, Plain) else source.materialize(views))
