"""Parses TOML. Values with missing quotes are reported, and read as if they had them."""

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
    """The tables of a TOML text, and the repaired text that they were read from.

    Raises:
        ManifestError: it has an error that cannot be repaired.

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
        except ValueError:  # Python's limit on the digits of an integer
            what = "a number in it has too many digits"
            raise ManifestError([Problem(Position(str(path)), what)]) from None
    raise ManifestError(problems.found)


def _problem(path: Path, text: str, error: tomli.TOMLDecodeError) -> Problem:
    line, column = error.lineno, error.colno
    lines = text.split("\n")
    where = Position(str(path), line, column, lines[line - 1] if line <= len(lines) else "")
    return Problem(where, _message(error))


def _message(error: tomli.TOMLDecodeError) -> str:
    twice = re.match(r"Cannot declare \('(stage|item)',\) twice", error.msg)
    if twice:
        return f"[{twice[1]}] is written more than once: write each as [[{twice[1]}]]"
    return error.msg[:1].lower() + error.msg[1:]


def _repaired(path: Path, text: str, error: tomli.TOMLDecodeError, problems: Problems) -> str | None:
    """The text with quotes around the value at the error; None if missing quotes are not the cause."""
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
        what = "true and false are lower case" if value.lower() in ("true", "false") else "text needs quotes"
        problems.add(where, f"{what}: {written}")
        lines[error.lineno - 1] = line[:start] + written + line[start + len(value) :]
    return "\n".join(lines)


def _unquoted(line: str, error: tomli.TOMLDecodeError) -> tuple[int, str] | None:
    """The index in the line and the text of an unquoted value; None if there is none at the error."""
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
    """The value as TOML."""
    if value.lower() in ("true", "false"):
        return value.lower()
    return f"'{value}'" if "\\" in value else f'"{value}"'
