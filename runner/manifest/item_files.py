r"""Reads items from ``.txt`` (one prompt per line), ``.csv`` (header and rows) and ``.jsonl`` files.

Empty and ``null`` values count as not set. In ``.txt`` files, lines that start with ``#`` are comments;
``\#`` starts a prompt with that character.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from runner.manifest.batch_item import BatchItem, at
from runner.manifest.bounds import limit_violations
from runner.manifest.explain import named
from runner.manifest.load import read_text
from runner.manifest.problems import Position, Problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ITEM_FILE_LIMIT = 1 << 28  # bytes; reading takes a few times as much RAM
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""CSV delimiters, in the order in which they are tried on the header."""
EACH_LINE = 'each line must be an object, such as {"prompt": "a fox"}'
_COLUMN = re.compile(r"\w[\w-]*")
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<delimiter>.)"?', re.IGNORECASE)  # written by Excel before the header
REMEDIES = {
    ".json": "write an object a line and name it .jsonl",
    ".tsv": "name it .csv: tabs between cells are recognised",
    ".xlsx": 'save it as "CSV UTF-8"',
}


def read_items(path: Path, problems: Problems) -> list[BatchItem]:
    """The items of a file; faulty rows are reported to ``problems``.

    Raises:
        ManifestError: the file cannot be read, or is not text.

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


def _position(file: str, line: int, source: str, column: int = 1) -> Position:
    return Position(file, line, column, source[:200])


def _read_txt(file: str, text: str, _problems: Problems) -> Iterator[BatchItem]:
    for n, line in enumerate(text.split("\n"), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            place = _position(file, n, line)
            yield BatchItem({"prompt": prompt[1:] if prompt.startswith("\\#") else prompt}, at(place))


def _read_jsonl(file: str, text: str, problems: Problems) -> Iterator[BatchItem]:
    if re.match(r"\s*\[\s*\{", text):
        message = f"a JSON array: {EACH_LINE} (`jq -c '.[]' FILE` makes them of it)"
        problems.add(_position(file, 1, text.split("\n", 1)[0]), message)
        return
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = strict_json(line)
        except json.JSONDecodeError as error:
            problems.add(_position(file, n, line, error.colno), f"not JSON: {error.msg}")
            continue
        except NotJsonError as error:
            problems.add(_position(file, n, line, line.rfind(error.word) + 1), str(error))
            continue
        except (ValueError, RecursionError):
            problems.add(_position(file, n, line), "not JSON that can be read (nested or numbers too long)")
            continue
        if not isinstance(fields, dict):
            problems.add(_position(file, n, line), EACH_LINE)
            continue
        where = _field_finder(file, n, line, '"{}"')
        violations = list(limit_violations(fields))
        for path, what in violations:
            problems.add(where(str(path[0])), f"'{named(path)}' {what}")
        if not violations:
            yield BatchItem({name: value for name, value in fields.items() if value is not None}, where)


def strict_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        NotJsonError: it has a constant such as NaN, or a name twice.
        ValueError, RecursionError: it is not JSON, or cannot be read.

    """
    return json.loads(text, object_pairs_hook=_table, parse_constant=_refuse_constant)


class NotJsonError(ValueError):
    """Input that Python's parser accepts although it is not valid JSON; ``word`` is the faulty part."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise NotJsonError(f'"{name}"', f"'{name}' is given twice")
        table[name] = value
    return table


def _refuse_constant(name: str) -> None:
    raise NotJsonError(name, f"not JSON: {name} is not a JSON number")


def _read_csv(file: str, text: str, problems: Problems) -> Iterator[BatchItem]:
    lines = text.split("\n")
    skipped, delimiter = _delimiter(lines)
    if delimiter not in DELIMITERS:
        known = ", ".join(DELIMITERS.values())
        problems.add(_position(file, 1, lines[0], 5), f"unknown cell separator; supported are {known}")
        return
    # read_text refuses NUL bytes; `strict` turns broken quoting into an error
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
                header = _header(row, _position(file, start, source), problems)
                if header is None:
                    return
                named_at = _field_finder(file, start, source, "{}")
            elif len(row) > len(header):
                count = f"{len(row)} cells under {len(header)} columns"
                what = DELIMITERS[delimiter]
                problems.add(_position(file, start, source), f"{count}; quote cells that hold {what}")
            else:
                cells = {k: v.strip() for k, v in zip(header, row, strict=False) if v.strip()}
                where = _cell_finder(file, start, source, cells)
                yield BatchItem(cells, where, text_only=True, where_named=named_at)
    except csv.Error as error:
        line = max(rows.line_num, 1) + skipped
        problems.add(_position(file, line, lines[line - 1]), f"not CSV: {error}")


def _delimiter(lines: list[str]) -> tuple[int, str]:
    """The number of lines before the header, and the delimiter: the first that splits it into names."""
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
        return _position(file, n, line, found + 1 if found >= 0 else 1)

    return where


def _cell_finder(
    file: str, n: int, source: str, cells: Mapping[str, str]
) -> Callable[[str | None], Position]:
    def where(field: str | None) -> Position:
        found = source.find(cells[field]) if field and field in cells else -1
        return _position(file, n, source, found + 1 if found >= 0 else 1)

    return where
