"""Nesting and numbers that know no end."""

from __future__ import annotations

from typing import Any

import pytest

from runner.manifest.bounds import DEEPEST, DIGITS, limit_violations


def nested(levels: int) -> Any:
    value: Any = 1
    for n in range(levels):
        value = [value] if n % 2 else {"x": value}
    return value


def test_what_is_within_them() -> None:
    assert list(limit_violations({"a": [1, -(10**DIGITS) + 1, {"b": "x" * 1000}]})) == []
    assert list(limit_violations(nested(DEEPEST - 1))) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers(sign: int) -> None:
    assert list(limit_violations({"a": [0, sign * 10**DIGITS]})) == [
        (("a", 1), "is a whole number of more than 100 digits")
    ]


def test_nesting() -> None:
    ((path, words),) = limit_violations(nested(DEEPEST))
    assert len(path) == DEEPEST
    assert words == "is nested deeper than 32 levels"
    assert len(list(limit_violations(nested(5000)))) == 1
