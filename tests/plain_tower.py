"""A small model of blocks of different sizes; importing it imports nothing of the engine."""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 24
HIDDEN = (40, 8, 33, 40, 16)
"""Sizes of the blocks; an odd one puts what lies behind it at an odd offset."""


class Layer(torch.nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.up = torch.nn.Linear(WIDTH, hidden)
        self.down = torch.nn.Linear(hidden, WIDTH, bias=False)
        self.nothing = torch.nn.Parameter(torch.empty(0, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


class Tower(torch.nn.Module):
    def __init__(self, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTH, WIDTH)
        self.blocks = torch.nn.ModuleList(Layer(size) for size in hidden)
        self.last = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, path: Iterable[int] | None = None) -> torch.Tensor:
        x = self.first(x)
        for at in range(len(self.blocks)) if path is None else path:
            x = self.blocks[at](x)
        result: torch.Tensor = self.last(x)
        return result


def numbers(seed: int, rows: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Input for a tower."""
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)
