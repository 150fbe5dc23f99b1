"""What is known of a CPU's speed before anything was measured."""

from __future__ import annotations

import pytest

from runner.machine.cpu import speed_beside_float32


@pytest.mark.parametrize(
    ("dtype", "flags", "times"),
    [
        ("bfloat16", {"avx2", "fma"}, 1 / 6),
        ("bfloat16", {"avx512f", "avx512bw"}, 1 / 6),
        ("bfloat16", {"avx512_bf16"}, 2),
        ("bfloat16", {"avx512_bf16", "amx_bf16"}, 8),
        ("float16", {"avx512_bf16", "amx_bf16"}, 1 / 6),
        ("float16", {"avx512_fp16"}, 2),
        ("bfloat16", {"asimd", "bf16"}, 2),
        ("float32", {"avx2"}, 1),
        ("bfloat16", set(), 1),  # unknown flags
    ],
)
def test_half_precision_is_fast_where_the_cpu_multiplies_it(
    dtype: str, flags: set[str], times: float
) -> None:
    assert speed_beside_float32(dtype, flags) == times
