from __future__ import annotations

import pytest

from runner.units import format_duration, format_size, in_quarters, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8GB", 8 * 10**9),
        ("512 MiB", 2**29),
        ("1.5KiB", 1536),
        ("7B", 7),
        ("2TiB", 2**41),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("wrong", [8, 8.0, True, "8", "GiB", "8 gib", "-1GiB", "1e3GiB", "0MiB", "", None])
def test_what_is_no_size(wrong: object) -> None:
    with pytest.raises(ValueError):
        parse_size(wrong)


def test_durations() -> None:
    assert [parse_duration(v) for v in (90, 0.5, "90s", "30m", "2h", "1d")] == [
        90,
        0.5,
        90,
        1800,
        7200,
        86400,
    ]
    for wrong in (0, -1, True, "soon", "1y", float("inf"), float("nan")):
        with pytest.raises(ValueError):
            parse_duration(wrong)


def test_sizes_are_shown_in_binary_units() -> None:
    shown = [format_size(n) for n in (0, 1023, 1536, 5 * 2**20, 7.4 * 2**30, 3000 * 2**30)]
    assert shown == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "7.40 GiB", "3000.00 GiB"]


def test_durations_are_shown_in_the_units_that_matter() -> None:
    shown = [format_duration(n) for n in (0, 8.44, 59.9, 60, 725.4, 3600, 11_540)]
    assert shown == ["0.0 s", "8.4 s", "59.9 s", "1 min 0 s", "12 min 5 s", "1 h 0 min", "3 h 12 min"]


def test_a_budget_is_in_quarters_of_a_gib() -> None:
    gib = 2**30
    assert [in_quarters(n) for n in (0, gib // 4, gib // 2 - 1, 8 * gib - 1)] == [
        "0.25GiB",
        "0.25GiB",
        "0.25GiB",
        "7.75GiB",
    ]
    assert [in_quarters(n, up=True) for n in (1, gib // 4, gib // 4 + 1, 8 * gib)] == [
        "0.25GiB",
        "0.25GiB",
        "0.5GiB",
        "8GiB",
    ]
