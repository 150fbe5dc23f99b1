"""Tensors that know which ones of a file they were made of: they show what a conversion leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch.utils import _pytree as pytree

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection

    from runner.files.header import Header


class TracedTensor(torch.Tensor):
    """A tensor with the names of those that it was computed from."""

    sources: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tensor: torch.Tensor, name: str) -> Self:
        made = tensor.as_subclass(cls)
        made.sources = frozenset({name})
        return made

    def plain(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plainly: Any = super()
        made = plainly.__torch_function__(func, types, args, kwargs or {})
        given = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, cls)]
        sources = frozenset[str]().union(*(one.sources for one in given))
        for one in pytree.tree_leaves(made):
            if isinstance(one, cls):
                one.sources |= sources
        return made


def left_out(loader: Any, header: Header) -> set[str]:
    """The tensors of a file that diffusers ignores: the set shrinks to them while ``loader`` loads it."""
    left = {name for name in header.tensors if not name.endswith("alpha")}
    convert = loader.lora_state_dict

    def converted(*args: Any, **options: Any) -> Any:
        found = convert(*args, **options)
        tensors = found[0] if isinstance(found, tuple) else found
        for name, tensor in tensors.items():
            if isinstance(tensor, TracedTensor):
                left.difference_update(tensor.sources)
                tensors[name] = tensor.plain()
        return found

    loader.lora_state_dict = converted
    return left


def refuse_left_out(left: Collection[str], notes: list[str]) -> None:
    """Refuse a file of which diffusers leaves matrices out without a word; add a note on other tensors."""
    known = bool(notes)  # diffusers has said that it leaves tensors out
    norms = sorted(name for name in left if "norm" in name and name.endswith((".diff", ".diff_b")))
    if norms:
        notes.append(f"diffusers drops its {len(norms)} changes of norm layers (such as {norms[0]})")
    others = sorted({*left}.difference(norms))
    if not others or known:
        return
    dropped = f"diffusers would drop {len(others)} of its tensors (such as {others[0]})"
    if any("lora" in name or "lokr" in name for name in others):
        raise ModelError(f"{dropped}: it is for another model, or has names that diffusers does not know")
    notes.append(f"{dropped}: they have no effect")
