"""Counts the live bytes of tensors, operations and kernels' workspaces while models run on fake tensors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import flop_registry

from runner.api import Convolution, convolution_workspace
from runner.api.live_bytes import LiveBytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.api import Sizes

ATEN = torch.ops.aten
LEAST = 20480
"""torch gives small convolutions on the CPU to its own kernels, not to oneDNN.

Small are those whose input has at most so many numbers in its first four dimensions: batch, channels, and two
of its sizes (``ConvParams::use_mkldnn`` in torch's source).
"""
HEAP = 1 << 20
"""Bytes from which malloc gives a tensor pages of its own, in workers (``MALLOC_MMAP_THRESHOLD_``)."""
COMPLEMENTS = (ATEN.bitwise_not.default, ATEN.logical_not.default)
"""Operations that make the complement of a mask."""


@dataclass(frozen=True)
class Cost:
    """The memory and the arithmetic of a part of a computation, such as one block of a transformer."""

    bytes: int
    """The most that was alive at once, beyond what was alive before it."""
    small: int
    """The same of small tensors alone; :class:`LiveBytes` says which are small."""
    in_heap: int
    """The same of tensors that malloc puts into its heap."""
    operations: int
    """Floating-point operations."""


class Count(LiveBytes):  # type: ignore[no-untyped-call]
    """Live bytes, with workspaces, and operations.

    Fake tensors have no values. Where shapes depend on some, masks are taken as true everywhere, their
    complements as false, and numbers as 1.
    """

    in_heap = in_heap_peak = 0
    """Bytes of tensors of less than :data:`HEAP` each, now and at the most."""

    def __init__(
        self,
        sizes: Sizes,
        excluded: Iterable[torch.nn.Module | torch.Tensor] = (),
        inputs: Iterable[torch.Tensor] = (),
    ) -> None:
        super().__init__(excluded, inputs)
        self.operations = 0
        self.waiting = 0
        """The most bytes that are alive where a block begins."""
        self._sizes = sizes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], FakeTensor):
            if func is ATEN._local_scalar_dense.default:  # noqa: SLF001 - its name in torch
                return 1.0 if args[0].is_floating_point() else 1
            if func is ATEN.equal.default:
                return True
            if func is ATEN.nonzero.default:
                return _positions(args[0])
            if func is ATEN.index.Tensor:
                args = (args[0], [one for mask in args[1] for one in _as_positions(mask)], *args[2:])
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func in COMPLEMENTS and isinstance(out, FakeTensor):
            out.is_complement = True  # type: ignore[attr-defined]
        if func is ATEN.convolution.default and not args[6]:  # the seventh argument: transposed
            sizes = replace(self._sizes, dtype=str(out.dtype).removeprefix("torch."))
            workspace = convolution_workspace(sizes, _convolution(args[0], args[1], out, args[8]))
            self.peak = max(self.peak, self.now + workspace)
        counted = flop_registry.get(func._overloadpacket)  # noqa: SLF001 - how torch's own counter finds it
        if counted is not None:
            self.operations += int(counted(*args, **kwargs, out_val=out))
        return out

    def _add(self, size: int) -> None:
        super()._add(size)
        if abs(size) < HEAP:
            self.in_heap += size
            self.in_heap_peak = max(self.in_heap_peak, self.in_heap)

    def add(self, cost: Cost) -> None:
        """Count what has this cost, and is not run again; its results are held apart."""
        self.peak = max(self.peak, self.now + cost.bytes)
        self.small_peak = max(self.small_peak, self.small + cost.small)
        self.in_heap_peak = max(self.in_heap_peak, self.in_heap + cost.in_heap)
        self.operations += cost.operations

    @contextmanager
    def costing(self) -> Iterator[list[Cost]]:
        """Find the cost of what runs inside; the list has it at the end."""
        before = self.peak, self.small_peak, self.in_heap_peak
        held = self.now, self.small, self.in_heap
        done = self.operations
        self.peak, self.small_peak, self.in_heap_peak = held
        found: list[Cost] = []
        yield found
        peaks = self.peak, self.small_peak, self.in_heap_peak
        most, small, in_heap = (peak - now for peak, now in zip(peaks, held, strict=True))
        found.append(Cost(most, small, in_heap, self.operations - done))
        self.peak, self.small_peak, self.in_heap_peak = map(max, peaks, before)


def _convolution(
    source: torch.Tensor, weight: torch.Tensor, result: torch.Tensor, groups: int
) -> Convolution:
    taps = weight.shape[2:].numel()
    # ConvParams::use_mkldnn of torch, where it asks for sizes
    is_small = groups == 1 and source.shape[0] == 1 and source.shape[:4].numel() <= LEAST
    is_small = is_small and not min(weight.shape[-2:]) > 3
    return Convolution(
        source.shape[1],
        result.shape[1],
        source.shape[0] * source.shape[2:].numel(),
        result.shape[0] * result.shape[2:].numel(),
        taps,
        is_small,
    )


def _as_positions(mask: torch.Tensor | None) -> list[torch.Tensor | None]:
    """A mask as an index has the positions where it is true."""
    if mask is None or mask.dtype not in (torch.bool, torch.uint8):
        return [mask]
    return list(_positions(mask).unbind(1))


def _positions(mask: torch.Tensor) -> torch.Tensor:
    number = 0 if getattr(mask, "is_complement", False) else mask.numel()
    return mask.new_empty((number, mask.dim()), dtype=torch.int64)
