"""Sizes and durations, written with their unit."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)")
_SIZE_UNITS = {"B": 1} | {
    f"{prefix}{i}B": (1024 if i else 1000) ** power
    for power, prefix in enumerate("KMGT", 1)
    for i in ("", "i")
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_size(value: Any) -> int:
    """Bytes of ``"8GiB"``, ``"8GB"`` or ``"512MiB"``.

    Raises:
        ValueError: there is no unit, or no positive number before it.

    """
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'write a size with its unit, such as "8GiB" or "512MiB", not {value!r}')
    size = int(float(match[1]) * _SIZE_UNITS[match[2]])
    if size <= 0:
        raise ValueError("a size must be more than nothing")
    return size


def parse_duration(value: Any) -> float:
    """Seconds of ``90``, ``"90s"``, ``"30m"`` or ``"2h"``.

    Raises:
        ValueError: it is none of these, or not positive.

    """
    seconds = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _DURATION_UNITS[match[2]]
    if not 0 < seconds < float("inf"):
        raise ValueError(f'write a time in seconds, or as "30m" or "2h", not {value!r}')
    return seconds


def format_size(size: float) -> str:
    """``"7.40 GiB"``: binary units, two digits from GiB up, one below."""
    for unit, digits in (("B", 0), ("KiB", 1), ("MiB", 1), ("GiB", 2)):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.{digits}f} {unit}"
        size /= 1024
    raise AssertionError


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
