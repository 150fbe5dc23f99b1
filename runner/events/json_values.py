"""Converts untrusted JSON values to typed ones within limits."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable

Bytes = dict[str, int | None]
"""Bytes of ``"vram"`` and ``"ram"``."""
MOST = 1 << 62
"""Limit on the absolute value of numbers."""


def reader(kind: Any) -> Callable[[Any], Any]:
    """A function that converts a JSON value to a type: plain, optional, list, tuple or dict.

    It raises TypeError, ValueError or OverflowError for an invalid value.
    """
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        (other,) = (one for one in arguments if one is not NoneType)
        return partial(_optional, reader(other))
    if get_origin(kind) is list:
        return partial(_list, reader(arguments[0]))
    if get_origin(kind) is tuple:
        return partial(_tuple, [reader(one) for one in arguments])
    if get_origin(kind) is dict:
        return partial(_dict, reader(arguments[1]))
    return _PLAIN[kind]


def text(value: Any) -> str:
    """A string that can be encoded: JSON can contain lone surrogates, which are replaced."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value.encode("utf-8", "replace").decode("utf-8")


def whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, str) or abs(number) > MOST:
        raise ValueError(number)
    return number


def finite(value: Any) -> float:
    number = value if type(value) is int else float(value)
    if isinstance(value, str) or not (math.isfinite(number) and abs(number) < MOST):
        raise ValueError(number)
    return number


def moment(value: Any) -> datetime | None:
    """A time in UTC; None for an invalid one."""
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def written(time: datetime) -> str:
    """A time in UTC as ISO 8601 with milliseconds."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _anything(value: Any) -> Any:
    return value


def _optional(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else read(value)


def _list(read: Callable[[Any], Any], value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(value)
    return [read(one) for one in value]


def _tuple(readers: list[Callable[[Any], Any]], value: Any) -> tuple[Any, ...]:
    return tuple(read(one) for read, one in zip(readers, value, strict=True))


def _dict(read: Callable[[Any], Any], value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return {text(name): read(one) for name, one in value.items()}


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    str: text,
    int: whole,
    float: finite,
    bool: bool,
    Any: _anything,
}
