"""Limits on the nesting and the numbers of TOML and JSON input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.manifest.positions import Path

DEEPEST = 32  # levels of nested tables and lists
DIGITS = 100  # of a whole number; Python itself prints at most 4300


def limit_violations(value: Any) -> Iterator[tuple[Path, str]]:
    """The path and a description of each part of a parsed value that exceeds a limit. Not recursive."""
    level: list[tuple[Path, Any]] = [((), value)]
    for _ in range(DEEPEST):
        for path, one in level:
            if type(one) is int and abs(one) >= 10**DIGITS:
                yield path, f"is a whole number of more than {DIGITS} digits"
        level = [((*path, name), inner) for path, one in level for name, inner in _within(one)]
        if not level:
            return
    yield level[0][0], f"is nested deeper than {DEEPEST} levels"


def _within(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)
