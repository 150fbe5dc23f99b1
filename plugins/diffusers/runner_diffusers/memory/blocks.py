"""Blocks of a model that are alike: the second one's cost is that of the first.

A transformer of 60 blocks is measured in little more time than one of 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from runner_diffusers.memory.signatures import is_plain, kind, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner_diffusers.memory.counting import Cost, Count


@dataclass(frozen=True)
class _Returned:
    """One tensor of what a block returns: one that it was given, or a new one."""

    given: int | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Blocks:
    """The blocks of one model: those of its outermost lists."""

    def __init__(self, current: Callable[[], Count | None]) -> None:
        """``current`` returns what counts the call that runs."""
        self._current = current
        self._known: dict[Any, tuple[Cost, Any]] = {}

    def watch(self, model: torch.nn.Module) -> None:
        """Replace the ``forward`` of each block, and of the blocks in it."""
        for block, outermost in _blocks(model):
            vars(block)["forward"] = partial(self._run, block.forward, kind(block), outermost)

    def _run(
        self, forward: Callable[..., Any], block: Any, outermost: bool, *args: Any, **kwargs: Any
    ) -> Any:
        count = self._current()
        if count is None:
            return forward(*args, **kwargs)
        if outermost:  # those wait for their weights
            count.waiting = max(count.waiting, count.now)
        if not is_plain((args, kwargs)):
            return forward(*args, **kwargs)
        key = (block, signature((args, kwargs)))
        given = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if key not in self._known:
            with count.costing() as costs:
                returned = forward(*args, **kwargs)
            self._known[key] = costs[0], pytree.tree_map(partial(_described, given), returned)
            return returned
        cost, template = self._known[key]
        count.add(cost)
        return pytree.tree_map(partial(_made, given), template)


def _described(given: list[torch.Tensor], value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    at = next((n for n, one in enumerate(given) if one is value), None)
    return _Returned(at, value.dtype, tuple(value.shape), tuple(value.stride()))


def _made(given: list[torch.Tensor], value: Any) -> Any:
    if not isinstance(value, _Returned):
        return value
    if value.given is not None:
        return given[value.given]
    return torch.empty_strided(value.shape, value.stride, dtype=value.dtype, device="cpu")


def _blocks(module: torch.nn.Module, *, outermost: bool = True) -> Iterator[tuple[torch.nn.Module, bool]]:
    """The members of lists with two or more, and whether their list is in no other."""
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList) and len(child) > 1:
            for block in child:
                yield block, outermost
                yield from _blocks(block, outermost=False)
        else:
            yield from _blocks(child, outermost=outermost)
