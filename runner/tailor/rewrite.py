"""Edits of a manifest's text: one value is set or removed, and every other character stays.

tomlkit alone would lose comments: for it, a comment above a table belongs to the table before. Here it only
renders values and edits inline tables; the offsets come from :mod:`runner.manifest.positions`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import tomli
import tomlkit

from runner.manifest.positions import Positions, Statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.manifest.positions import Path

_COMMENT = re.compile(r"[ \t]*(?:#[^\r\n]*)?")


class Layout:
    """The statements of a manifest's text, looked up by path."""

    def __init__(self, text: str) -> None:
        self.statements = Positions("", text).statements

    def header(self, path: Path) -> Statement | None:
        """The header of a table."""
        return next((s for s in self.statements if s.is_header and s.path == path), None)

    def pair(self, path: Path) -> Statement | None:
        """The statement that sets the value at ``path``, or the list or inline table that contains it."""
        return next((s for s in self.statements if not s.is_header and _in(path, s.path)), None)

    def last_under(self, header: Statement) -> Statement:
        """The last pair under a header; the header itself if there is none."""
        under = [s for s in self.statements if s.table == header.path and not s.is_header]
        return next((s for s in reversed(under) if s.start > header.start), header)


def put(text: str, path: Path, value: Any) -> str:
    """The text with one value set, where it stands or as a new line in its table."""
    layout = Layout(text)
    pair = layout.pair(path)
    if pair is not None and len(pair.path) < len(path):
        edited = _within(text, pair, path, value)
    elif pair is not None:
        edited = text[: pair.start] + _shown(value) + _text_after(text, pair, len(_shown(value)))
    else:
        edited = _add(text, layout, path, value)
    return _checked(text, edited, path, value)


def drop(text: str, path: Path) -> str:
    """The text without a value or a table; comments that follow a table stay."""
    layout = Layout(text)
    pair = layout.pair(path)
    if pair is not None and len(pair.path) < len(path):
        edited = _within(text, pair, path, None)
    else:
        edited = text
        for statement in reversed(layout.statements):  # from the end: offsets before it stay valid
            if _in(statement.path, path) and (statement.is_header or not _in(statement.table, path)):
                last = layout.last_under(statement) if statement.is_header else statement
                edited = edited[: _line_start(text, statement.start)] + edited[_next_line(text, last.end) :]
    return _checked(text, edited, path, None)


def remark(text: str, path: Path, words: str) -> str:
    """The text with the comment behind a value replaced; empty ``words`` remove it."""
    pair = Layout(text).pair(path)
    if pair is None:
        return text
    old = _COMMENT.match(text, pair.end)
    after = old.end() if old else pair.end
    margin = text[pair.end : after].partition("#")[0] or "  "
    return text[: pair.end] + (f"{margin}# {words}" if words else "") + text[after:]


def put_line(text: str, offset: int, line: str) -> str:
    """The text with a new line below the one at ``offset``, indented like it."""
    start, end = _line_start(text, offset), _line_end(text, offset)
    indent = re.match(r"[ \t]*", text[start:end])
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"{indent.group() if indent and part else ''}{part}" for part in line.split("\n")]
    return text[:end] + newline + newline.join(lines) + text[end:]


def _text_after(text: str, pair: Statement, length: int) -> str:
    """The text behind a value whose new ``length`` is given; a comment keeps its column if there is room."""
    old = _COMMENT.match(text, pair.end)
    gap, hash_, _ = old.group().partition("#") if old else ("", "", "")
    if not hash_ or "\t" in gap or "\n" in text[pair.start : pair.end]:
        return text[pair.end :]
    return " " * max(1, len(gap) + pair.end - pair.start - length) + text[pair.end + len(gap) :]


def same_data(text: str, other: str) -> bool:
    """Whether two texts differ only in comments."""
    return _comparable(tomli.loads(text)) == _comparable(tomli.loads(other))


def _within(text: str, pair: Statement, path: Path, value: Any) -> str:
    """The text with a value set or removed inside the list or inline table that ``pair`` sets."""
    document: Any = tomlkit.parse(text)
    for part in pair.path:
        document = document[part]
    inner = document
    for part in path[len(pair.path) : -1]:
        if isinstance(part, str) and part not in inner:
            inner[part] = tomlkit.inline_table()
        inner = inner[part]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return f"{text[: pair.start]}{document.as_string()}{text[pair.end :]}"


def _add(text: str, layout: Layout, path: Path, value: Any) -> str:
    table, key = path[:-1], _key(path[-1:])
    header = layout.header(table)
    if header is not None or not table:
        root = Statement((), 0, 0, ())
        return put_line(text, layout.last_under(header or root).end, f"{key} = {_shown(value)}")
    dotted = [s for s in layout.statements if _in(s.path, table) and _in(table, s.table) and not s.is_header]
    if dotted:
        near = dotted[-1]
        return put_line(text, near.end, f"{_key(path[len(near.table) :])} = {_shown(value)}")
    return _add_table(text, layout, table, f"{key} = {_shown(value)}")


def _add_table(text: str, layout: Layout, table: Path, line: str) -> str:
    """The text with a new table: inside its stage, or before the first stage."""
    lines = f"[{_key(table)}]\n{line}"
    stage = layout.header(table[:2]) if len(table) > 2 else None
    if stage is not None:
        return put_line(text, layout.last_under(stage).end, lines)
    first = layout.header(("stage", 0))
    before = [s for s in layout.statements if first is None or s.start < first.start]
    return put_line(text, before[-1].end if before else 0, f"\n{lines}")


def _checked(text: str, edited: str, path: Path, value: Any) -> str:
    """The edited text, checked to parse to the expected data: a wrong edit must never reach a file."""
    expected = tomli.loads(text)
    table: Any = expected
    for part in path[:-1]:
        table = table.setdefault(part, {}) if isinstance(part, str) else table[part]
    if value is None:
        table.pop(path[-1], None)
    else:
        table[path[-1]] = value
    if _comparable(tomli.loads(edited)) != _comparable(expected):
        raise RuntimeError(f"editing {'.'.join(map(str, path))} gave wrong data: {edited!r}")
    return edited


def _comparable(tables: Any) -> str:
    """As JSON, since NaN is unequal to itself; without empty tables, which dotted keys cannot express."""
    return json.dumps(_without_empty(tables), sort_keys=True, default=str)


def _without_empty(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_empty(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: inner for name, one in value.items() if (inner := _without_empty(one)) != {}}


def _in(path: Path, table: Path) -> bool:
    return path[: len(table)] == table


def _shown(value: Any) -> str:
    return str(tomlkit.item(value).as_string())


def _key(path: Sequence[str | int]) -> str:
    """A path as a header or dotted key has it: without the numbers of stages."""
    return ".".join(tomlkit.key(part).as_string() for part in path if isinstance(part, str))


def _line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _line_end(text: str, offset: int) -> int:
    """The end of the line at ``offset``, before its line break."""
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    return end - 1 if text[offset:end].endswith("\r") else end


def _next_line(text: str, offset: int) -> int:
    end = text.find("\n", offset)
    return len(text) if end < 0 else end + 1
