"""Components that take turns on a device: whichever runs is there, and no other."""

from __future__ import annotations

from typing import Any, Self

import torch

from runner.placement.library import MappedModule
from runner.placement.offloaded import ModelSwapper

HOST, DEVICE = torch.device("cpu"), torch.device("meta")


class Part(torch.nn.Module):
    """Notes where it is sent."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.name, self.log = name, log

    def to(self, device: Any, *_: Any, **__: Any) -> Self:  # type: ignore[override]
        self.log.append((self.name, torch.device(device).type))
        return self

    def forward(self, x: int, *, more: int = 0) -> int:
        self.log.append((self.name, "runs"))
        return x + more


def test_the_others_leave_before_one_comes() -> None:
    log: list[tuple[str, str]] = []
    turns = ModelSwapper(DEVICE)
    parts = [turns.load(MappedModule(Part(name, log), {})) for name in "abc"]
    assert all(part.weight.device == HOST for part in parts)
    assert log == []

    assert parts[1](3, more=4) == 7
    assert log == [("a", "cpu"), ("c", "cpu"), ("b", "meta"), ("b", "runs")]
    log.clear()
    parts[0](1)
    assert log == [("b", "cpu"), ("c", "cpu"), ("a", "meta"), ("a", "runs")]


def test_weights_are_our_own_in_ram() -> None:
    """Not those of a mapped file."""
    part = Part("a", [])
    before = part.weight.data_ptr()
    ModelSwapper(DEVICE).load(MappedModule(part, {}))
    assert part.weight.data_ptr() != before
    assert torch.equal(part.weight, torch.ones(2))
