"""Parses and formats sizes and durations with units."""

from __future__ import annotations

import re
from typing import Any

MIB = 1 << 20
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)")
_SIZE_UNITS = {"B": 1} | {
    f"{prefix}{i}B": (1024 if i else 1000) ** power
    for power, prefix in enumerate("KMGT", 1)
    for i in ("", "i")
}
SIZE_LIMIT = 1 << 63  # bytes
_QUARTER = 1 << 28
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(DURATION_UNITS)})")


def parse_size(value: Any) -> int:
    """Bytes of ``"8GiB"``, ``"8GB"`` or ``"512MiB"``.

    Raises:
        ValueError: there is no unit, or no positive number before it, or the size is too large.

    """
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'write a size with its unit, such as "8GiB" or "512MiB", not {value!r}')
    size = float(match[1]) * _SIZE_UNITS[match[2]]
    if not 1 <= size < SIZE_LIMIT:
        raise ValueError("a size must be at least 1 byte and less than 8 EiB")
    return int(size)


def parse_duration(value: Any) -> float:
    """Seconds of ``90``, ``"90s"``, ``"30m"``, ``"2h"`` or ``"30d"``.

    Raises:
        ValueError: it is none of these, or not positive.

    """
    seconds = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * DURATION_UNITS[match[2]]
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


def format_duration(seconds: float) -> str:
    """``"3 h 12 min"``, ``"12 min 5 s"`` or ``"8.4 s"``: the two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def in_quarters(size: int, *, up: bool = False) -> str:
    """``"7.75GiB"``: bytes in quarters of a GiB, for budgets; rounded down, but at least one, or up."""
    quarters = -(-size // _QUARTER) if up else max(1, size // _QUARTER)
    return f"{quarters / 4:g}GiB"
