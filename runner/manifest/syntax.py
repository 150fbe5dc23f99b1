"""TOML text to tables. A value whose quotes were forgotten is named and read as if it had them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tomli

from runner.manifest.problems import ManifestError, Position, Problem, Problems

if TYPE_CHECKING:
    from pathlib import Path

REPAIRS_LIMIT = 50
_KEY = r"""\s*(?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w-]+)*\s*"""
_ASSIGNED = re.compile(rf"({_KEY}=\s*)([^\s\"'\[{{#][^\"'#]*?)\s*(#.*)?")
_ELEMENT = re.compile(r"[^\s,\"'\[\]{}#=][^,\"'\[\]{}#=]*")
_WORD = re.compile(r"[^\W\d_]|[/~\\]")
_NO_VALUE = ("none", "null", "nil")


def read_toml(path: Path, text: str, problems: Problems) -> tuple[dict[str, Any], str]:
    """The tables of a TOML text, and the text that they were read from: with quotes where they lacked.

    Raises:
        ManifestError: there is no reading on from what is wrong.

    """
    for _ in range(REPAIRS_LIMIT):
        try:
            return tomli.loads(text), text
        except tomli.TOMLDecodeError as error:
            repaired = _repaired(path, text, error, problems)
            if repaired is None:
                raise ManifestError([*problems.found, _problem(path, text, error)]) from None
            text = repaired
        except RecursionError:
            what = "the TOML is nested too deeply"
            raise ManifestError([Problem(Position(str(path)), what)]) from None
        except ValueError:  # of Python's own, about the one thing that it does not read
            what = "a number in it has too many digits"
            raise ManifestError([Problem(Position(str(path)), what)]) from None
    raise ManifestError(problems.found)


def _problem(path: Path, text: str, error: tomli.TOMLDecodeError) -> Problem:
    line, column = error.lineno, error.colno
    lines = text.split("\n")
    where = Position(str(path), line, column, lines[line - 1] if line <= len(lines) else "")
    return Problem(where, _words(error))


def _words(error: tomli.TOMLDecodeError) -> str:
    twice = re.match(r"Cannot declare \('(stage|item)',\) twice", error.msg)
    if twice:
        return f"[{twice[1]}] is written more than once: several are written [[{twice[1]}]]"
    return error.msg[:1].lower() + error.msg[1:]


def _repaired(path: Path, text: str, error: tomli.TOMLDecodeError, problems: Problems) -> str | None:
    """The text with the value at the error in quotes; None if that is not what is wrong."""
    lines = text.split("\n")
    line = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
    found = _unquoted(line, error)
    if found is None:
        return None
    start, value = found
    where = Position(str(path), error.lineno, start + 1, line)
    if value.lower() in _NO_VALUE:
        problems.add(where, f"TOML has no {value}: leave the key out")
        lines[error.lineno - 1] = ""
    else:
        written = _written(value)
        what = (
            "true and false are written small" if value.lower() in ("true", "false") else "text needs quotes"
        )
        problems.add(where, f"{what}: {written}")
        lines[error.lineno - 1] = line[:start] + written + line[start + len(value) :]
    return "\n".join(lines)


def _unquoted(line: str, error: tomli.TOMLDecodeError) -> tuple[int, str] | None:
    """Where in the line a value without quotes begins, and the value; None if there is none at the error."""
    at = error.colno - 1
    assigned = _ASSIGNED.fullmatch(line.rstrip("\r"))
    if assigned and at >= assigned.end(1) and error.msg.startswith(("Invalid value", "Expected newline")):
        start, value = assigned.end(1), assigned[2]
    elif error.msg.startswith("Invalid value") and (element := _ELEMENT.match(line, at)):
        start, value = at, element[0].rstrip()
    else:
        return None
    return (start, value) if _WORD.search(value) else None


def _written(value: str) -> str:
    if value.lower() in ("true", "false"):
        return value.lower()
    return f"'{value}'" if "\\" in value else f'"{value}"'
