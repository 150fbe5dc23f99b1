r"""Items from files: ``.txt`` (a prompt a line), ``.csv`` (header and rows), ``.jsonl`` (an object a line).

A value that is left empty, or is ``null``, is not set. In ``.txt`` files, lines that start with ``#`` are
comments; ``\#`` starts a prompt with that character.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.manifest.bounds import limit_violations
from runner.manifest.explain import named
from runner.manifest.load import read_text
from runner.manifest.problems import Position, Problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ITEM_FILE_LIMIT = 1 << 28  # bytes; memory takes a few times as much
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""Of CSV, in the order in which they are tried on the header."""
EACH_LINE = 'each line must be an object, such as {"prompt": "a fox"}'
_COLUMN = re.compile(r"\w[\w-]*")
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<delimiter>.)"?', re.IGNORECASE)  # Excel's own, before the header
REMEDIES = {
    ".json": "write an object a line and name it .jsonl",
    ".tsv": "name it .csv: tabs between cells are recognised",
    ".xlsx": 'save it as "CSV UTF-8"',
}


@dataclass(frozen=True)
class RawItem:
    """An item as written: its fields, and where each of them stands.

    ``text_only``: the values came from a format that knows nothing but strings.
    """

    fields: Mapping[str, Any]
    where: Callable[[str | None], Position]
    text_only: bool = False
    where_named: Callable[[str], Position] | None = None
    """Where a field's name is written, if that is not beside its value."""


def read_items(path: Path, problems: Problems) -> list[RawItem]:
    """The items of a file; what is wrong in it goes to ``problems``, row by row.

    Raises:
        ManifestError: the file cannot be read, or is no text.

    """
    readers = {".txt": _read_txt, ".csv": _read_csv, ".jsonl": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        remedy = REMEDIES.get(path.suffix.lower())
        hint = f"; {remedy}" if remedy else ""
        problems.add(Position(str(path)), f"items come from .txt, .csv and .jsonl files only{hint}")
        return []
    text = read_text(path, ITEM_FILE_LIMIT)
    return list(reader(str(path), text.replace("\r\n", "\n").replace("\r", "\n"), problems))


def always(place: Position) -> Callable[[str | None], Position]:
    """Where every field of an item stands that is written in one place."""
    return lambda _field: place


def _at(file: str, line: int, source: str, column: int = 1) -> Position:
    return Position(file, line, column, source[:200])


def _read_txt(file: str, text: str, _problems: Problems) -> Iterator[RawItem]:
    for n, line in enumerate(text.split("\n"), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            place = _at(file, n, line)
            yield RawItem({"prompt": prompt[1:] if prompt.startswith("\\#") else prompt}, always(place))


def _read_jsonl(file: str, text: str, problems: Problems) -> Iterator[RawItem]:
    if re.match(r"\s*\[\s*\{", text):
        message = f"a JSON array: {EACH_LINE} (`jq -c '.[]' FILE` makes them of it)"
        problems.add(_at(file, 1, text.split("\n", 1)[0]), message)
        return
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line, object_pairs_hook=_table, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            problems.add(_at(file, n, line, error.colno), f"not JSON: {error.msg}")
            continue
        except _NotJsonError as error:
            problems.add(_at(file, n, line, line.rfind(error.word) + 1), str(error))
            continue
        except (ValueError, RecursionError):
            problems.add(_at(file, n, line), "not JSON that can be read (nested or numbers too long)")
            continue
        if not isinstance(fields, dict):
            problems.add(_at(file, n, line), EACH_LINE)
            continue
        where = _field_finder(file, n, line, '"{}"')
        wrong = list(limit_violations(fields))
        for place, what in wrong:
            problems.add(where(str(place[0])), f"'{named(place)}' {what}")
        if not wrong:
            yield RawItem({name: value for name, value in fields.items() if value is not None}, where)


class _NotJsonError(Exception):
    """Something that Python's parser takes, and JSON has not or leaves open; ``word`` is where it stands."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise _NotJsonError(f'"{name}"', f"'{name}' is given twice")
        table[name] = value
    return table


def _refuse_constant(name: str) -> None:
    raise _NotJsonError(name, f"not JSON: {name} is no number that it has")


def _read_csv(file: str, text: str, problems: Problems) -> Iterator[RawItem]:
    lines = text.split("\n")
    skipped, delimiter = _delimiter(lines)
    if delimiter not in DELIMITERS:
        known = ", ".join(DELIMITERS.values())
        problems.add(_at(file, 1, lines[0], 5), f"cells cannot be separated so; there are: {known}")
        return
    # NUL bytes are refused before; `strict` turns broken quoting into an error
    rest = io.StringIO("\n".join(lines[skipped:]), newline="")
    rows = csv.reader(rest, strict=True, delimiter=delimiter)
    header: list[str] | None = None
    try:
        while True:
            start = rows.line_num + skipped + 1
            row = next(rows, None)
            if row is None:
                return
            source = lines[start - 1]
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = _header(row, _at(file, start, source), problems)
                if header is None:
                    return
                named_at = _field_finder(file, start, source, "{}")
            elif len(row) > len(header):
                count = f"{len(row)} cells under {len(header)} columns"
                what = DELIMITERS[delimiter]
                problems.add(_at(file, start, source), f"{count}; quote cells that hold {what}")
            else:
                cells = {k: v.strip() for k, v in zip(header, row, strict=False) if v.strip()}
                where = _cell_finder(file, start, source, cells)
                yield RawItem(cells, where, text_only=True, where_named=named_at)
    except csv.Error as error:
        line = max(rows.line_num, 1) + skipped
        problems.add(_at(file, line, lines[line - 1]), f"not CSV: {error}")


def _delimiter(lines: list[str]) -> tuple[int, str]:
    """How many lines come before the header, and what separates cells: what leaves names in the header."""
    declared = _SEPARATOR_LINE.fullmatch(lines[0].strip(" "))
    if declared:
        return 1, declared["delimiter"]
    header = next((line for line in lines if line.strip()), "")
    for delimiter in DELIMITERS:
        names = [name.strip().strip('"').strip() for name in header.split(delimiter)]
        if all(map(_COLUMN.fullmatch, names)):
            return 0, delimiter
    return 0, ","


def _header(row: list[str], place: Position, problems: Problems) -> list[str] | None:
    header = [name.strip() for name in row]
    if not all(header) or len(set(header)) < len(header):
        problems.add(place, "the first line must name the columns, each once: prompt,seed,...")
        return None
    return header


def _field_finder(file: str, n: int, line: str, pattern: str) -> Callable[[str | None], Position]:
    def where(field: str | None) -> Position:
        found = line.find(pattern.format(field)) if field else -1
        return _at(file, n, line, found + 1 if found >= 0 else 1)

    return where


def _cell_finder(
    file: str, n: int, source: str, cells: Mapping[str, str]
) -> Callable[[str | None], Position]:
    def where(field: str | None) -> Position:
        found = source.find(cells[field]) if field and field in cells else -1
        return _at(file, n, source, found + 1 if found >= 0 else 1)

    return where
