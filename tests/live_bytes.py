"""The most bytes that tensors hold at one time while code runs: real tensors, or fake ones of any size.

:class:`LiveBytes` counts every storage from the operation that makes it until it is gone, once, however many
tensors share it. Under ``FakeTensorMode`` the same code runs without memory or arithmetic, so that a model of any
size is measured in seconds. What kernels take for themselves while they run is no tensor:
:func:`allocator_peak` has that too, of real runs on the CPU.
"""

from __future__ import annotations

import json
import weakref
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class LiveBytes(TorchDispatchMode):
    """Counts while it is entered, inside of ``FakeTensorMode``: ``peak`` bytes, made ``at`` an operation.

    The weights of ``apart`` are not counted, nor are the tensors among it; ``inputs`` are from the start.
    """

    def __init__(
        self, apart: Iterable[torch.nn.Module | torch.Tensor] = (), inputs: Iterable[torch.Tensor] = ()
    ) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.at = ""
        self._apart = {tensor.untyped_storage()._cdata for one in apart for tensor in _tensors(one)}
        self._alive: dict[int, tuple[int, weakref.ref[Any]]] = {}
        for tensor in inputs:
            self._hold(tensor, "inputs")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if args and isinstance(args[0], FakeTensor):  # it has no value; shapes here depend on none
            if func is torch.ops.aten._local_scalar_dense.default:
                return 1.0 if args[0].is_floating_point() else 1
            if func is torch.ops.aten.equal.default:
                return True
        # in inference mode composites arrive whole: take torch's own path through them, with what they make
        if func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), COMPOSITE
        ):
            with self:
                return func._op_dk(COMPOSITE, *args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor, str(func))
        return out

    def _hold(self, tensor: torch.Tensor, at: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._apart or key in self._alive:
            return
        self._alive[key] = (storage.nbytes(), weakref.ref(storage, partial(self._gone, key)))
        self.now += storage.nbytes()
        if self.now > self.peak:
            self.peak, self.at = self.now, at

    def _gone(self, key: int, _reference: object) -> None:
        self.now -= self._alive.pop(key)[0]


def _tensors(one: torch.nn.Module | torch.Tensor) -> Iterable[torch.Tensor]:
    return (one,) if isinstance(one, torch.Tensor) else chain(one.parameters(), one.buffers())


def allocator_peak(run: Callable[[], object], folder: Path) -> int:
    """Bytes that torch's CPU allocator gave out beyond what it had, at the most, while ``run`` ran.

    The profiler only writes them to a file, which goes to ``folder``.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    trace = folder / "trace.json"
    profiler.export_chrome_trace(str(trace))
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    totals = [event["args"]["Total Allocated"] for event in events]
    return max(totals) - (totals[0] - events[0]["args"]["Bytes"])
