"""What this CPU multiplies itself: half precision may be much faster than float32, or much slower."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

NATIVE = {  # instructions by dtype, as Linux names them, with operations per operation in float32
    "bfloat16": (("amx_bf16", 8.0), ("avx512_bf16", 2.0), ("bf16", 2.0)),
    "float16": (("amx_fp16", 8.0), ("avx512_fp16", 2.0), ("fphp", 1.0)),
}
WITHOUT = 1 / 6
"""Without such instructions half precision is converted, and computes 4 to 10 times slower (measured)."""


def speed_beside_float32(dtype: str, flags: Collection[str]) -> float:
    """How many times as fast as float32 a CPU with these flags computes in ``dtype``, roughly.

    Of a CPU without any flags nothing is known: as fast.
    """
    if dtype == "float32" or not flags:
        return 1.0
    return next((times for flag, times in NATIVE.get(dtype, ()) if flag in flags), WITHOUT)


@cache
def cpu_flags() -> frozenset[str]:
    """What Linux tells of this CPU; empty elsewhere."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(errors="replace").splitlines() if told.exists() else []
    named = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, ()))
