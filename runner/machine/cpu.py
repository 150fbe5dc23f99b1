"""CPU cores, and how fast the CPU computes in half precision compared with float32."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

NATIVE = {  # by dtype: CPU flags as Linux names them, and speed relative to float32; the fastest first
    "bfloat16": (("amx_bf16", 8.0), ("avx512_bf16", 2.0), ("bf16", 2.0)),
    "float16": (("amx_fp16", 8.0), ("avx512_fp16", 2.0), ("fphp", 1.0)),
}
EMULATED = 1 / 6
"""Speed relative to float32 without such instructions: measured as 4 to 10 times slower."""


def speed_beside_float32(dtype: str, flags: Collection[str]) -> float:
    """Estimated speed of ``dtype`` relative to float32 on a CPU with these flags.

    1.0 for a CPU whose flags are unknown (empty).
    """
    if dtype == "float32" or not flags:
        return 1.0
    return next((times for flag, times in NATIVE.get(dtype, ()) if flag in flags), EMULATED)


@cache
def cpu_flags() -> frozenset[str]:
    """Feature flags of this CPU from ``/proc/cpuinfo``; empty on other systems than Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, ()))


def core_count() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
