"""Measures the peak bytes of live tensors while code runs, as a memory formula counts them."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL = 16 << 20
"""Bytes up to which freed memory may stay in a worker; that of larger tensors goes back to the system."""
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd  # noqa: SLF001 - torch has no other name for it


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered; ``peak`` is in bytes, ``at`` the operation that reached it.

    A storage counts once, from the operation that allocates it until it is freed. Tensors in ``excluded`` and
    the weights of its modules are not counted; ``inputs`` count from the start. Memory that kernels allocate
    internally is not seen.
    """

    def __init__(
        self, excluded: Iterable[torch.nn.Module | torch.Tensor] = (), inputs: Iterable[torch.Tensor] = ()
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.small = self.small_peak = 0
        """Bytes of tensors of up to :data:`SMALL` each, now and at the most."""
        self.at = ""
        self._excluded = {_key(tensor.untyped_storage()) for one in excluded for tensor in _tensors(one)}
        self._alive: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self.hold(inputs, "inputs")

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping ``__torch_dispatch__``: that would import its compiler, for a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        # in inference mode composite operations are not decomposed: do that, so that their temporaries count
        composite = func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(  # noqa: SLF001
            func.name(), _COMPOSITE
        )
        if composite:
            with self:
                return func._op_dk(_COMPOSITE, *args, **(kwargs or {}))  # noqa: SLF001
        out = func(*args, **(kwargs or {}))
        self.hold((tensor for tensor in tree_iter(out) if isinstance(tensor, torch.Tensor)), str(func))
        return out

    def hold(self, tensors: Iterable[torch.Tensor], at: str) -> None:
        """Count tensors that were made elsewhere, until they are freed; ``at`` is what made them."""
        for tensor in tensors:
            self._hold(tensor, at)

    def _hold(self, tensor: torch.Tensor, at: str) -> None:
        storage = tensor.untyped_storage()
        key = _key(storage)
        if key in self._excluded or key in self._alive:
            return
        self._alive[key] = (storage.nbytes(), weakref.ref(storage, partial(self._on_freed, key)))
        self._add(storage.nbytes())
        self.small_peak = max(self.small_peak, self.small)
        if self.now > self.peak:
            self.peak, self.at = self.now, at

    def _on_freed(self, key: int, _reference: object) -> None:
        self._add(-self._alive.pop(key)[0])

    def _add(self, size: int) -> None:
        self.now += size
        if abs(size) <= SMALL:
            self.small += size


def _key(storage: torch.UntypedStorage) -> int:
    return int(storage._cdata)  # noqa: SLF001 - its address: fake tensors have no data_ptr()


def _tensors(one: torch.nn.Module | torch.Tensor) -> Iterable[torch.Tensor]:
    return (one,) if isinstance(one, torch.Tensor) else chain(one.parameters(), one.buffers())
