"""Memory that kernels take for themselves beside their tensors, where it was measured. Imports no torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.api.memory import Sizes

FLOAT32 = 4
BLOCK = 16  # channels, of oneDNN with AVX-512
TILES = 1 << 21  # bytes of oneDNN's buffers in half precision; measured: 0.1 to 1.8 MB, two threads


@dataclass(frozen=True)
class Convolution:
    """Sizes of a convolution, 2D or 3D, of one item: channels, and the positions that each has."""

    before: int
    """Channels of the source."""
    width: int
    """Channels of the result."""
    source: int
    """Positions (pixels, or pixels of all frames) of the source."""
    result: int
    """Positions of the result."""
    taps: int = 9
    """Kernel size: positions of the source that each position of the result reads, such as 9 for 3 x 3."""
    is_small: bool = False
    """Whether torch does not give it to oneDNN in float32, since its source is too small."""


def convolution_workspace(sizes: Sizes, convolution: Convolution) -> int:
    """Bytes that a convolution's kernel takes beside its source, weights and result: copies in its layout."""
    one, size = convolution, sizes.itemsize
    source, result = one.before * one.source * size, one.width * one.result * size
    if sizes.device != "cpu":
        return source + result  # cuDNN, channels last: nchwToNhwcKernel and back, in its workspace
    if _unfolds(sizes.dtype) or (one.is_small and sizes.dtype == "float32"):
        # slow_conv2d's and slow_conv3d's columns
        return one.taps * one.before * one.result * size if one.taps > 1 else 0
    weights = one.taps * one.before * one.width * size
    if _has_tiles(sizes.dtype):  # oneDNN, channels last: source and weights, later the result twice more
        return max(source + weights + TILES, 2 * result)
    # oneDNN, in blocks of channels: source, weights and result, of which the last is then copied;
    # a source of less than a block stays as it is, and 1 x 1 kernels pack half precision again
    blocked = _padded(one.width) * one.result * size
    copied = _padded(one.before) * one.source * size if one.before >= BLOCK or one.taps == 1 else 0
    packed = source if one.taps == 1 and size < FLOAT32 else 0
    return max(copied + packed + weights + blocked - result, blocked)


def _padded(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


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
