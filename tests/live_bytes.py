"""The most bytes that tensors hold at one time while code runs: real tensors, or fake ones of any size.

Under ``FakeTensorMode`` the same code runs without memory or arithmetic, so that a model of any size is measured
in seconds. What kernels take for themselves while they run is no tensor: :func:`allocator_peak` has that too, of
real runs on the CPU.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.profiler import ProfilerActivity, profile

from runner.api import live_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class LiveBytes(live_bytes.LiveBytes):
    """Counts inside of ``FakeTensorMode``, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], FakeTensor):  # it has no value; shapes here depend on none
            if func is torch.ops.aten._local_scalar_dense.default:
                return 1.0 if args[0].is_floating_point() else 1
            if func is torch.ops.aten.equal.default:
                return True
        return super().__torch_dispatch__(func, types, args, kwargs)


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
