"""Blocks whose weights are streamed: which parameters they have, and how these lie in a slot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.stream.names import Place

ALIGNMENT = 256
"""Bytes. 64 would do on the CPU; cuBLAS chooses its kernels by alignments up to 256."""


@dataclass(frozen=True)
class Weight:
    """One parameter of a block: who has it, where it is stored, where it goes in a slot."""

    owner: torch.nn.Module
    name: str
    place: Place
    shape: torch.Size
    stored: torch.dtype
    dtype: torch.dtype
    """What it computes in."""
    offset: int
    """Bytes from the start of the slot."""


@dataclass(eq=False)
class Block:
    """A module whose weights come and go together."""

    name: str
    module: torch.nn.Module
    kept: bool = False
    """Whether it waits in pinned RAM, beside an accelerator, rather than on disk."""
    weights: list[Weight] = field(default_factory=list)
    size: int = 0
    """Bytes in a slot, as stored."""
    cast_size: int = 0
    """Bytes of those weights that are cast, in the dtype that they compute in."""

    def add(
        self, owner: torch.nn.Module, name: str, weight: torch.Tensor, place: Place, dtype: torch.dtype
    ) -> None:
        """Take a parameter in, and leave an empty one of its shape where it was."""
        added = Weight(owner, name, place, weight.shape, weight.dtype, dtype, self.size)
        self.weights.append(added)
        self.size = _aligned(self.size + place.size)
        if dtype != weight.dtype:
            self.cast_size = _aligned(self.cast_size + weight.numel() * dtype.itemsize)
        _set(added, torch.empty(weight.shape, dtype=dtype, device="meta"))

    def bind(self, slot: torch.Tensor, cast: torch.Tensor) -> None:
        """Let the parameters be what lies in the slot (bytes); what must be cast is cast into ``cast``."""
        at = 0
        for weight in self.weights:
            raw = slot[weight.offset : weight.offset + weight.place.size]
            value = raw.view(weight.stored).view(weight.shape)
            if weight.dtype != weight.stored:
                size = value.numel() * weight.dtype.itemsize
                target = cast[at : at + size].view(weight.dtype).view(weight.shape)
                value = target.copy_(value)
                at = _aligned(at + size)
            _set(weight, value)

    def release(self) -> None:
        """Leave the parameters empty again, with their shapes and dtypes."""
        for weight in self.weights:
            _set(weight, torch.empty(weight.shape, dtype=weight.dtype, device="meta"))


def find_blocks(module: torch.nn.Module, streamed: Callable[[str], bool]) -> list[Block]:
    """The modules that ``streamed`` says of, by their names, in the module's own order.

    Of a list it takes the members; inside a block there are no further ones.
    """
    blocks: list[Block] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{block.name}.") for block in blocks)
        a_list = isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)
        if name and not inside and not a_list and streamed(name):
            blocks.append(Block(name, part))
    return blocks


def _set(weight: Weight, value: torch.Tensor) -> None:
    # straight into the table: going through __setattr__ would cost more than small blocks compute
    weight.owner._parameters[weight.name] = torch.nn.Parameter(value, requires_grad=False)  # noqa: SLF001


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
