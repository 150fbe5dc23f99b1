"""Scales of fp8 weights, by the names that ComfyUI and others give them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.files.header import TensorInfo

WEIGHT = "weight"
SCALES = ("scale_weight", "weight_scale")
"""Names beside ``weight``; the weight is what is stored times this."""
OF_INPUTS = ("scale_input", "input_scale")
"""Scales of a layer's inputs, for computing in fp8; ignored, as weights do not depend on them."""
MARKS = ("scaled_fp8", "comfy_quant")
"""Names of marker tensors: they show that a file, or a layer, has scales."""
FP8 = ("F8_E4M3", "F8_E5M2")
_SCALE_DTYPES = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class Scales:
    """The scales in a file."""

    of: Mapping[str, str] = field(default_factory=dict)
    """The name of each weight's scale."""
    beside: frozenset[str] = frozenset()
    """Names of tensors that are no weights: scales and marks."""


def scales_of(tensors: Mapping[str, TensorInfo]) -> Scales:
    """The scales of a file.

    Raises:
        ModelError: a scale is of a kind that is not read, or its weight is no fp8.

    """
    found: dict[str, str] = {}
    beside: set[str] = set()
    for name in tensors:
        owner, _, last = name.rpartition(".")
        if last in (*OF_INPUTS, *MARKS):
            beside.add(name)
        elif last in SCALES:
            weight = f"{owner}.{WEIGHT}"
            _check(name, tensors[name], weight, tensors.get(weight))
            if weight in found:
                raise ModelError(f"'{weight}' has two scales, '{found[weight]}' and '{name}'")
            found[weight] = name
            beside.add(name)
    return Scales(found, frozenset(beside))


def _check(name: str, scale: TensorInfo, weight_name: str, weight: TensorInfo | None) -> None:
    if weight is None:
        raise ModelError(f"it holds '{name}' and no '{weight_name}'")
    rows = weight.shape[:1]
    one_each = (rows, (*rows, *[1] * (len(weight.shape) - 1)))
    if (
        weight.dtype not in FP8
        or scale.dtype not in _SCALE_DTYPES
        or not (scale.elements == 1 or scale.shape in one_each)
    ):
        raise ModelError(
            f"'{name}' ({scale.dtype}, {_shown(scale.shape)}) is the scale of '{weight_name}' "
            f"({weight.dtype}, {_shown(weight.shape)}); only fp8 weights with one scale, or one for "
            "each row, are read: get the weights in bfloat16, in fp8 without scales, or as GGUF"
        )


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
