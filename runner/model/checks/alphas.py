"""Checks the alphas in a LoRA's file: the one number beside a pair of matrices that scales their product.

diffusers' converters divide by an alpha, and halve it in a loop until it is small, which never ends for
numbers that are not positive.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files.storage import open_to_read

if TYPE_CHECKING:
    from pathlib import Path

    from runner.files.header import Header

_FORMATS = {
    "F64": "<d",
    "F32": "<f",
    "BF16": "<f",
    "F16": "<e",
    "I64": "<q",
    "I32": "<i",
    "I16": "<h",
    "I8": "<b",
    "U8": "<B",
}


def check_alphas(path: Path, header: Header, shown: str) -> None:
    """Check that each alpha of a file is one positive number; ``shown`` is what messages call the file.

    Raises:
        ModelError: one is not.
        OSError: the file cannot be read.

    """
    with open_to_read(path) as file:
        for name, info in header.tensors.items():
            if not name.endswith("alpha"):
                continue
            if info.elements != 1:
                raise ModelError(
                    f"{shown}: it is damaged: '{name}' should be one number, and is {info.elements}"
                )
            if info.dtype not in _FORMATS:
                raise ModelError(f"{shown}: it holds '{name}' as {info.dtype}, which is not read here")
            file.seek(info.start)
            value = _number(info.dtype, file.read(info.end - info.start))
            if not 0 < value < math.inf:
                raise ModelError(f"{shown} cannot be used: '{name}' is {value:g}, and not positive")


def _number(dtype: str, raw: bytes) -> float:
    lower_half = b"\0\0" if dtype == "BF16" else b""  # BF16 is the upper half of a float32
    return float(struct.unpack(_FORMATS[dtype], lower_half + raw)[0])
