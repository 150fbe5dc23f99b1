"""The most bytes that tensors hold at one time while code runs: real tensors, or fake ones of any size.

Every storage that an operation makes is counted from then on until it is gone, each once, however many
tensors share it. Under ``FakeTensorMode`` the same code runs without memory or arithmetic, so that the peak of
a model of any size is had in seconds. What kernels take for themselves in between (oneDNN's reordered copies,
cuDNN's workspaces) is no tensor and is not counted.
"""

from __future__ import annotations

import weakref
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from collections.abc import Iterable


COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class LiveBytes(TorchDispatchMode):
    """Counts while it is entered; ``peak`` and ``now`` are bytes. Enter it inside ``FakeTensorMode``.

    ``weights`` are modules whose parameters and buffers are not counted; ``inputs`` are tensors made before that
    are. With ``device`` only tensors on that kind of device count.
    """

    def __init__(
        self,
        weights: Iterable[torch.nn.Module] = (),
        inputs: Iterable[torch.Tensor] = (),
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.at_peak: str = ""
        self._device = device
        self._seen: dict[weakref.ref[Any], int] = {}
        self._weights = {
            tensor.untyped_storage()._cdata
            for module in weights
            for tensor in chain(module.parameters(), module.buffers())
        }
        for tensor in inputs:
            self.hold(tensor)

    def hold(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor for as long as it lives."""
        if self._device is not None and tensor.device.type != self._device:
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._weights:
            return
        reference = weakref.ref(storage, self._gone)
        if reference in self._seen:
            return
        self._seen[reference] = storage.nbytes()
        self.now += storage.nbytes()

    def _gone(self, reference: weakref.ref[Any]) -> None:
        self.now -= self._seen.pop(reference, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else 1
        if func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), COMPOSITE
        ):
            with self:
                return func._op_dk(COMPOSITE, *args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.hold(tensor)
        if self.now > self.peak:
            self.peak, self.at_peak = self.now, str(func)
        return out
