"""Tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

_STATUS_STYLES = {"ok": "green", "warn": "yellow", "broken": "bold red", "not run": "dim"}


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: slice = slice(0), *, narrow: bool = False
) -> Table:
    """A table without lines. ``right`` are the right-aligned columns; ``narrow`` leaves one space between."""
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    for column in made.columns[right]:
        column.justify = "right"
    for row in rows:
        made.add_row(*map(Text, row))  # as text: in a string rich would replace ":name:" by a symbol
    return made


class CheckRow(NamedTuple):
    """The result of a check for :func:`check_table`."""

    status: str
    """``ok``, ``warn``, ``broken`` or ``not run``."""
    name: str
    message: str
    advice: str = ""
    log: str = ""


def check_table(checks: Iterable[CheckRow], name_width: int = 0) -> Table:
    """The results of checks, with advice and the end of the log under their messages."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, min_width=len("not run") if name_width else None)
    made.add_column(no_wrap=True, min_width=name_width or None)
    made.add_column(overflow="fold")
    for check in checks:
        made.add_row(Text(check.status, _STATUS_STYLES[check.status]), check.name, Text(check.message))
        if check.advice:
            made.add_row("", "", Text(f"> {check.advice}"))
        if check.log:
            made.add_row("", "", Text(check.log, "dim"))
    return made
