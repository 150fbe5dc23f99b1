"""Deferred casts: a library's loading code requests them, and they are made when a weight is copied.

A weight that is cast during loading takes memory at once and cannot be streamed from its file. Which weights
are cast to what differs from class to class, so the requests of the library's own code are recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from runner.stream.names import mappings

if TYPE_CHECKING:
    from runner.model.files import ComponentFiles

# functions that do not compute with a weight; attributes are __get__ and __set__
_HARMLESS = {
    "__get__",
    "__set__",
    "_has_compatible_shallow_copy_type",
    "data_ptr",
    "detach",
    "dim",
    "element_size",
    "is_complex",
    "is_contiguous",
    "is_floating_point",
    "numel",
    "requires_grad_",
    "size",
    "stride",
}


class DeferredCasts(TorchFunctionMode):
    """Records, while it is active, the casts of weights that are mapped from a component's files."""

    def __init__(self, files: ComponentFiles) -> None:
        super().__init__()
        self._files = files
        self._mapped: list[range] = []
        self._deferred: dict[tuple[int, int], tuple[torch.Tensor, torch.dtype]] = {}
        """By address and length, which are unique as the weight is kept alive here."""
        self.computed = False
        """Whether such a weight was computed with, so that results may differ from a real cast's."""

    def dtypes(self, module: torch.nn.Module) -> dict[torch.Tensor, torch.dtype]:
        """The dtypes of the module's deferred casts, by weight."""
        tensors = (*module.parameters(), *module.buffers())
        return {
            tensor: self._deferred[_key(tensor)][1] for tensor in tensors if _key(tensor) in self._deferred
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.to and self._defers(*args, **kwargs):
            return args[0]
        if func is torch.Tensor.contiguous and not kwargs and _key(*args) in self._deferred:
            return args[0]
        if self._deferred and getattr(func, "__name__", "") not in _HARMLESS:
            args, kwargs = pytree.tree_map_only(torch.Tensor, self._cast, (args, kwargs))
        return func(*args, **kwargs)

    def _defers(self, weight: torch.Tensor, *args: Any, **kwargs: Any) -> bool:
        """Whether a call of ``Tensor.to`` is a cast that can be deferred, or has no effect; records it."""
        try:
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)  # noqa: SLF001
        except (RuntimeError, TypeError):  # a copy, or invalid arguments
            return False
        elsewhere = device is not None and device.type != "cpu"
        if elsewhere or memory_format is not None or not weight.is_floating_point():
            return False
        if _key(weight) in self._deferred:
            return dtype in (None, self._deferred[_key(weight)][1]) or self._defers_again(weight, dtype)
        if dtype in (None, weight.dtype) or not dtype.is_floating_point or not self._is_in_a_file(weight):
            return False
        self._deferred[_key(weight)] = weight, dtype
        return True

    def _defers_again(self, weight: torch.Tensor, dtype: torch.dtype | None) -> bool:
        """Whether a second cast can replace a deferred one: on a way by float32, nothing is rounded."""
        first = self._deferred[_key(weight)][1]
        if first != torch.float32 or weight.element_size() >= first.itemsize:
            return False
        if dtype is None or not dtype.is_floating_point:
            return False
        self._deferred[_key(weight)] = weight, dtype
        return True

    def _is_in_a_file(self, weight: torch.Tensor) -> bool:
        if not weight.numel() or weight.device.type != "cpu":
            return False
        address, _ = _key(weight)
        if not any(address in part for part in self._mapped):
            self._mapped = mappings(self._files)
        return any(address in part for part in self._mapped)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        if _key(tensor) not in self._deferred:
            return tensor
        self.computed = True
        return tensor.to(self._deferred[_key(tensor)][1])


def _key(weight: torch.Tensor) -> tuple[int, int]:
    return weight.data_ptr(), weight.numel()
