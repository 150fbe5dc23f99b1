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
    "F16": "<e",
    "I64": "<q",
    "I32": "<i",
    "I16": "<h",
    "I8": "<b",
    "U8": "<B",
}
_PREFIXES = {"BF16": ("<f", b"\0\0"), "F8_E5M2": ("<e", b"\0")}
"""Dtypes that are the upper bytes of another one."""


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
            file.seek(info.start)
            value = _number(info.dtype, file.read(info.end - info.start))
            if value is None:
                raise ModelError(f"{shown}: it holds '{name}' as {info.dtype}, which is not read here")
            if not 0 < value < math.inf:
                raise ModelError(f"{shown} cannot be used: '{name}' is {value:g}, and not positive")


def _number(dtype: str, raw: bytes) -> float | None:
    """A number as it is stored; None for a dtype that is not read."""
    if dtype == "F8_E4M3":
        return _e4m3(raw[0])
    kind, prefix = _PREFIXES.get(dtype, (_FORMATS.get(dtype), b""))
    return None if kind is None else float(struct.unpack(kind, prefix + raw)[0])


def _e4m3(byte: int) -> float:
    """A number of 8 bits: sign, 4 of the exponent, 3 of the mantissa, without infinity (arXiv 2209.05433)."""
    sign, exponent, mantissa = -1.0 if byte >> 7 else 1.0, byte >> 3 & 15, byte & 7
    if byte & 127 == 127:
        return math.nan
    return sign * (math.ldexp(mantissa, -9) if not exponent else math.ldexp(8 + mantissa, exponent - 10))
