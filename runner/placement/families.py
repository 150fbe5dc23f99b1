"""What is known of a class by the library that it is from."""

from __future__ import annotations

from typing import Any

import torch


def families(cls: Any) -> set[str]:
    """The top-level packages of a class and its bases."""
    return {base.__module__.partition(".")[0] for base in cls.__mro__}


def kept_in_float32(cls: Any, dtype: torch.dtype) -> set[str]:
    """Parts of the names of weights that the library keeps in float32 when it loads a folder in ``dtype``."""
    if "diffusers" in families(cls):
        return {*(cls._keep_in_fp32_modules or ())}
    strict = {*(getattr(cls, "_keep_in_fp32_modules_strict", None) or ())}
    return strict | ({*(cls._keep_in_fp32_modules or ())} if dtype == torch.float16 else set())
