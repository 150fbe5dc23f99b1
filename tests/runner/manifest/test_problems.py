"""How problems are reported: once, in their order, with a caret, and within bounds."""

from __future__ import annotations

import pytest

from runner.errors import ExitCode
from runner.manifest.problems import (
    MESSAGE_LIMIT,
    PROBLEMS_LIMIT,
    ManifestError,
    Position,
    Problem,
    Problems,
    did_you_mean,
)

TOKEN = "hf_" + "aB3" * 11


def test_each_is_reported_once_in_the_order_of_places() -> None:
    places = [
        Position("b.toml", 1, 1),
        Position("a.toml", 10, 1),
        Position("a.toml", 9, 5),
        Position("a.toml", 9, 5),
    ]
    error = ManifestError([Problem(place, "wrong") for place in places])
    assert str(error).splitlines() == ["a.toml:9:5: wrong", "a.toml:10:1: wrong", "b.toml:1:1: wrong"]


def test_the_command_line_comes_first_then_the_manifest_then_what_it_needs() -> None:
    def code(*codes: ExitCode) -> ExitCode:
        return ManifestError([Problem(Position("a"), f"{n}", code) for n, code in enumerate(codes)]).exit_code

    assert code(ExitCode.MODEL, ExitCode.MANIFEST, ExitCode.USAGE) == ExitCode.USAGE
    assert code(ExitCode.MODEL, ExitCode.MANIFEST, ExitCode.PLUGIN) == ExitCode.MANIFEST
    assert code(ExitCode.PLUGIN, ExitCode.MODEL) == ExitCode.MODEL


def test_what_was_found_is_raised() -> None:
    problems = Problems()
    problems.check()
    problems.add(Position("a.toml"), "wrong", ExitCode.PLUGIN)
    with pytest.raises(ManifestError, match=r"^a.toml: wrong$") as raised:
        problems.check()
    assert raised.value.exit_code == ExitCode.PLUGIN


def test_a_caret_stands_under_its_character() -> None:
    shown = str(Problem(Position("a.toml", 2, 4, "\tx = 9"), "wrong")).splitlines()
    assert shown == ["a.toml:2:4: wrong", "    \tx = 9", "    \t  ^"]
    long = "x" * 1000 + "!" + "y" * 1000
    _, source, caret = str(Problem(Position("a.toml", 1, 1001, long), "wrong")).splitlines()
    assert len(source) < 500
    assert source[caret.index("^")] == "!"


def test_what_is_shown_does_nothing_to_a_terminal() -> None:
    shown = str(Problem(Position("a.toml", 1, 1, "a\x1b[31mb"), "red \x1b[31m \x9b"))
    assert not set(shown) & {"\x1b", "\x9b"}


def test_there_are_bounds_to_what_is_shown() -> None:
    assert len(str(Problem(Position("a.toml"), "x" * 5000))) < MESSAGE_LIMIT + 20
    many = [Problem(Position("a.toml", n, 1), "wrong") for n in range(1, PROBLEMS_LIMIT + 4)]
    *lines, last = str(ManifestError(many)).splitlines()
    assert (len(lines), last) == (PROBLEMS_LIMIT, "... and 3 more like these")
    assert "more like these" not in str(ManifestError(many[:PROBLEMS_LIMIT]))


def test_as_json_no_secret_is_reported() -> None:
    reported = Problem(Position("a.toml", 1, 2), f"not {TOKEN}").as_dict()
    assert reported == {"file": "a.toml", "line": 1, "column": 2, "message": "not ***"}


def test_hints() -> None:
    assert did_you_mean("stpes", ["steps", "height"]) == "; did you mean 'steps'?"
    assert did_you_mean("x", ["steps", "height"]) == ""
    assert did_you_mean("steps" * 30, ["steps" * 30]) == ""
