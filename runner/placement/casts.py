"""Casts that wait: a library's loading code asks for them, and whoever copies a weight makes them.

A weight that is cast on loading is no longer the one in its file: it takes memory at once, and cannot be
streamed. What is cast to what is for the library to say, by rules that differ from class to class. So its own
code says it, and goes on with the weight as the file has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from runner.stream.names import mappings

if TYPE_CHECKING:
    from runner.model.files import ComponentFiles

# functions that look at a weight or wrap it, and make no numbers of it; attributes are __get__ and __set__
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
    """While it is entered, weights that lie in a component's files are cast in name only."""

    def __init__(self, files: ComponentFiles) -> None:
        super().__init__()
        self._files = files
        self._mapped: list[range] = []
        self._asked: dict[tuple[int, int], tuple[torch.Tensor, torch.dtype]] = {}
        """By address and length, which are a weight's own as long as it is kept here."""
        self.computed = False
        """Whether numbers were made of such a weight: what was then made may not be what it should be."""

    def dtypes(self, module: torch.nn.Module) -> dict[torch.Tensor, torch.dtype]:
        """What the module's weights are to be cast to, of those whose cast waits."""
        tensors = (*module.parameters(), *module.buffers())
        return {tensor: self._asked[_at(tensor)][1] for tensor in tensors if _at(tensor) in self._asked}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.to and self._can_wait(*args, **kwargs):
            return args[0]
        if func is torch.Tensor.contiguous and not kwargs and _at(*args) in self._asked:
            return args[0]
        if self._asked and getattr(func, "__name__", "") not in _HARMLESS:
            args, kwargs = pytree.tree_map_only(torch.Tensor, self._cast, (args, kwargs))
        return func(*args, **kwargs)

    def _can_wait(self, weight: torch.Tensor, *args: Any, **kwargs: Any) -> bool:
        """Whether what is asked of ``Tensor.to`` is a cast that can wait, or none at all."""
        try:
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)  # noqa: SLF001
        except (RuntimeError, TypeError):  # a copy, or what is not to be had
            return False
        elsewhere = device is not None and device.type != "cpu"
        if elsewhere or memory_format is not None or not weight.is_floating_point():
            return False
        if _at(weight) in self._asked:
            return dtype in (None, self._asked[_at(weight)][1])
        if dtype in (None, weight.dtype) or not dtype.is_floating_point or not self._is_in_a_file(weight):
            return False
        self._asked[_at(weight)] = weight, dtype
        return True

    def _is_in_a_file(self, weight: torch.Tensor) -> bool:
        if not weight.numel() or weight.device.type != "cpu":
            return False
        address, _ = _at(weight)
        if not any(address in part for part in self._mapped):
            self._mapped = mappings(self._files)
        return any(address in part for part in self._mapped)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        if _at(tensor) not in self._asked:
            return tensor
        self.computed = True
        return tensor.to(self._asked[_at(tensor)][1])


def _at(weight: torch.Tensor) -> tuple[int, int]:
    return weight.data_ptr(), weight.numel()
