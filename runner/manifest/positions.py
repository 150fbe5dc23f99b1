"""Finds the position of each key and value in a TOML text, which tomli does not report.

The text must be valid: it is parsed by tomli first.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from runner.manifest.problems import Position

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]\}\n#]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'",
    re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """A table header, or a key with its value."""

    path: Path
    start: int
    """Offset of the header, or of the value."""
    end: int
    """Offset behind it."""
    table: Path
    """The table whose header it stands under; a header's own path."""
    is_header: bool = False


class Positions:
    """Positions of keys and values by path, such as ``("stage", 1, "with", "steps")``."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._text = text
        self._starts = [0] + [m.end() for m in re.finditer("\n", text)]
        self._keys: dict[Path, int] = {}
        self._values: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}
        self.statements: list[Statement] = []
        """In their order in the text."""
        self._walk()

    def has(self, path: Path) -> bool:
        """Whether the path is in the text."""
        return path in self._keys

    def key(self, path: Path) -> Position:
        """The position of the key, or of its nearest parent that is in the text."""
        return self._near(path, self._keys)

    def value(self, path: Path) -> Position:
        """The position of the value; for a table that of its key."""
        return self.at(self._values[path]) if path in self._values else self.key(path)

    def at(self, offset: int) -> Position:
        """The position of a character, by its offset in the text."""
        line = bisect_right(self._starts, offset)
        start = self._starts[line - 1]
        end = self._text.find("\n", start)
        source = self._text[start : end if end >= 0 else None].rstrip("\r")
        return Position(self.file, line, offset - start + 1, source)

    def _near(self, path: Path, where: dict[Path, int]) -> Position:
        while path and path not in where:
            path = path[:-1]
        return self.at(where[path]) if path else Position(self.file)

    # A recursive-descent parser: _i is the cursor; each method moves it past what it has read.

    def _walk(self) -> None:
        self._i = 1 if self._text.startswith("\ufeff") else 0
        table: Path = ()
        while self._skip(_SPACE) < len(self._text):
            if self._text[self._i] == "[":
                start = self._i
                table = self._header()
                self.statements.append(Statement(table, start, self._i, table, is_header=True))
            else:
                path = self._pair(table)
                start = self._values[path]
                end = start + len(self._text[start : self._i].rstrip())
                self.statements.append(Statement(path, start, end, table))

    def _skip(self, what: re.Pattern[str]) -> int:
        match = what.match(self._text, self._i)
        self._i = match.end() if match else self._i
        return self._i

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._i)
        self._i += 2 if array else 1
        table: Path = ()
        parts = self._dotted()
        for n, (part, offset) in enumerate(parts):
            table = (*table, part)
            if array and n == len(parts) - 1:
                self._keys.setdefault(table, offset)
                self._lengths[table] = self._lengths.get(table, 0) + 1
            if table in self._lengths:
                table = (*table, self._lengths[table] - 1)
            self._keys.setdefault(table, offset)
        self._i += 2 if array else 1
        return table

    def _pair(self, table: Path) -> Path:
        path = table
        for part, offset in self._dotted():
            path = (*path, part)
            self._keys.setdefault(path, offset)
        self._i += 1  # the equals sign
        self._value(path)
        return path

    def _dotted(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            start = self._skip(_BLANK)
            quoted = _STRING.match(self._text, start)
            match = quoted or _BARE.match(self._text, start)
            if match is None:  # impossible, the text is valid
                raise AssertionError(self.at(start))
            self._i = match.end()
            parts.append((_unquote(match.group()) if quoted else match.group(), start))
            if self._text[self._skip(_BLANK)] != ".":
                return parts
            self._i += 1

    def _value(self, path: Path) -> None:
        start = self._skip(_BLANK)
        self._values[path] = start
        self._keys.setdefault(path, start)
        if self._text[start] == "[":
            self._sequence("]", path)
        elif self._text[start] == "{":
            self._sequence("}", path)
        else:
            self._skip(_STRING if self._text[start] in "\"'" else _SCALAR)

    def _sequence(self, close: str, path: Path) -> None:
        self._i += 1
        n = 0
        while self._text[self._skip(_SPACE)] != close:
            if self._text[self._i] == ",":
                self._i += 1
            elif close == "]":
                self._value((*path, n))
                n += 1
            else:
                self._pair(path)
        self._i += 1


def _unquote(key: str) -> str:
    import tomli

    parsed: dict[str, Any] = tomli.loads(f"key = {key}")
    return str(parsed["key"])
