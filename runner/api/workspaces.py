"""Memory that kernels take for themselves beside their tensors, where it was measured. Imports no torch."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.api.memory import Sizes

FLOAT32 = 4
TILES = 1 << 21  # of half-precision convolutions with two threads: 0.1 to 1.8 MB measured


def convolution_workspace(source: int, result: int, weights: int, taps: int, sizes: Sizes) -> int:
    """Bytes that a convolution's kernel takes beside its source, result and weights, whose bytes are given.

    They are copies in the kernel's own layout. ``taps`` are the numbers that a result is made of in one
    channel: 9 for 3 x 3.
    """
    if sizes.device != "cpu":
        return source + result  # cuDNN, channels last: nchwToNhwcKernel and back, in its workspace
    if _unfolds(sizes.dtype):
        return taps * source if taps > 1 else 0  # slow_conv2d's columns
    if _has_tiles(sizes.dtype):  # oneDNN, channels last: source and weights, later the result twice more
        return max(source + weights + TILES, 2 * result)
    # oneDNN, blocked: source and weights (its result takes turns); 1 x 1 kernels pack half precision again
    packed = source if taps == 1 and sizes.itemsize < FLOAT32 else 0
    return source + packed + weights


def _unfolds(dtype: str) -> bool:
    """Whether oneDNN has no convolution in that dtype on this CPU, and torch unfolds the source itself."""
    if dtype == "float32":
        return sys.platform == "darwin"
    return _flags().isdisjoint({"avx_ne_convert", "avx512bw" if dtype == "bfloat16" else "avx512_fp16"})


def _has_tiles(dtype: str) -> bool:
    """Whether this CPU has instructions for half precision: AMX tiles or AVX-512."""
    return {"bfloat16": "amx_bf16", "float16": "avx512_fp16"}.get(dtype) in _flags()


@cache
def _flags() -> frozenset[str]:
    """The CPU's feature flags, on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    return frozenset(cpuinfo.read_text().split() if cpuinfo.exists() else ())
