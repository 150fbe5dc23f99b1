"""Weights in fp8 with a scale beside each, as ComfyUI and others write them: the product is the weight."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch.utils import _pytree as pytree

CHUNK = 4 << 20  # numbers that are multiplied at a time: the product in float32 is as large as the weight

_VIEWS = {"chunk", "split", "narrow", "detach", "contiguous", "__getitem__", "view", "reshape"} | {
    "requires_grad_",
    "alias",
    "unsafe_chunk",
}
"""Functions whose results are made of the same numbers."""


class ScaledWeight(torch.Tensor):
    """An fp8 tensor (rows, columns) that stands for itself times ``scale``.

    Conversions may split it by rows; whatever else they do with it is done with the product, in float32.
    """

    scale: torch.Tensor
    """float32: one number, or one for each row."""

    @classmethod
    def of(cls, weight: torch.Tensor, scale: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_subclass(cls, weight)  # noqa: SLF001
        made.scale = scale
        return made

    def plain(self) -> torch.Tensor:
        """The fp8 numbers."""
        return torch.Tensor._make_subclass(torch.Tensor, self)  # noqa: SLF001

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _VIEWS or name == "__get__":
            result = _plainly(func, args, kwargs)
            return pytree.tree_map_only(cls, lambda view: _with_scale(view, args[0]), result)
        if name in _METADATA:
            return _plainly(func, args, kwargs)
        args, kwargs = pytree.tree_map_only(cls, lambda w: product(w.plain(), w.scale), (args, kwargs or {}))
        return func(*args, **kwargs)


def _plainly(func: Any, args: Any, kwargs: Any) -> Any:
    """What torch returns; tensors are of the subclass, without a scale."""
    plain: Any = torch.Tensor
    return plain.__torch_function__.__func__(ScaledWeight, func, (ScaledWeight,), args, kwargs or {})


_METADATA = {
    "_has_compatible_shallow_copy_type",
    "__len__",
    "__set__",
    "data_ptr",
    "dim",
    "element_size",
    "get_device",
    "is_complex",
    "is_contiguous",
    "is_floating_point",
    "nelement",
    "numel",
    "size",
    "storage_offset",
    "stride",
    "untyped_storage",
}


def _with_scale(view: ScaledWeight, whole: ScaledWeight) -> torch.Tensor:
    """A view of some rows, with their scales; the product where it is no view of whole rows."""
    scale = whole.scale
    if scale.numel() > 1 and view.shape != whole.shape:
        if view.shape[1:] != whole.shape[1:]:
            return product(whole.plain(), scale).reshape(view.shape)
        first = (view.storage_offset() - whole.storage_offset()) // whole.stride(0)
        scale = scale[first : first + len(view)]
    view.scale = scale
    return view


def product(weight: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """The weight times its scale, multiplied in float32 and rounded once to the dtype of ``out``.

    ``weight`` is fp8 (rows, ...), ``scale`` one number or one for each row. Without ``out``, it is float32.
    """
    made = torch.empty(weight.shape, dtype=torch.float32, device=weight.device) if out is None else out
    per_row = scale.numel() > 1
    rows = max(1, CHUNK // max(1, weight[0].numel())) if weight.dim() else 1
    if weight.dim() == 0:
        return made.copy_(weight.to(torch.float32) * scale.to(torch.float32).reshape(()))
    for first in range(0, len(weight), rows):
        some = slice(first, first + rows)
        factor = scale[some].reshape(-1, *[1] * (weight.dim() - 1)) if per_row else scale.reshape(())
        made[some].copy_(weight[some].to(torch.float32) * factor.to(torch.float32))
    return made
