"""What activation formulas receive and return."""

from __future__ import annotations

import pytest

from runner.api import Activations, Sizes


def test_the_earlier_name_of_output_bytes_is_accepted() -> None:
    assert Activations(peak=1, leaves=3) == Activations(peak=1, output_bytes=3)
    assert Activations(peak=1, output_bytes=3).output_bytes == 3


@pytest.mark.parametrize(
    ("dtype", "save_dtype", "itemsizes"),
    [("float32", None, (4, 4)), ("float32", "bfloat16", (4, 2)), ("float16", "float32", (2, 4))],
)
def test_bytes_of_a_number(dtype: str, save_dtype: str | None, itemsizes: tuple[int, int]) -> None:
    sizes = Sizes(dtype, "cpu", save_dtype=save_dtype)
    assert (sizes.itemsize, sizes.save_itemsize) == itemsizes
