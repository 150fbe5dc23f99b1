"""A terminal's screen, as far as the command writes to one: what stands in its rows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARTS = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")


@dataclass
class Screen:
    """Rows of a terminal that is ``width`` columns wide, reading what is written to its other end."""

    width: int
    ours: int = -1
    theirs: int = -1
    rows: list[list[str]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    echoed: int = 0
    """How often Ctrl-C was echoed."""

    @property
    def lines(self) -> list[str]:
        """The rows that are not empty."""
        return [text for row in self.rows if (text := "".join(row).rstrip())]

    def let_go(self) -> None:
        """Close the end that was handed to another process."""
        os.close(self.theirs)
        self.theirs = -1

    def type(self, keys: str) -> None:
        """Type: the terminal echoes it."""
        os.write(self.ours, keys.encode())

    def read(self, seconds: float = 0.2) -> bool:
        """Take what has been written; False once the other end is closed."""
        while select.select([self.ours], [], [], seconds)[0]:
            try:
                data = os.read(self.ours, 1 << 16)
            except OSError:  # nobody has the other end any more
                return False
            if not data:
                return False
            self.write(data.decode(errors="replace"))
        return True

    def write(self, text: str) -> None:
        self.echoed += text.count("^C")
        for match in _PARTS.finditer(text):
            numbers, control, line_end, character = match.groups()
            if control is not None:
                self._control(control, int(numbers) if numbers.isdigit() else 0)
            elif line_end == "\r":
                self.column = 0
            elif line_end == "\n":
                self._down()
            else:
                self._put(character)

    def _put(self, character: str) -> None:
        if self.column == self.width:  # the last column was written: the next character begins a row
            self.column = 0
            self._down()
        row = self.rows[self.row]
        row.extend(" " * (self.column + 1 - len(row)))
        row[self.column] = character
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def _control(self, control: str, number: int) -> None:
        match control:
            case "A":
                self.row = max(0, self.row - max(number, 1))
            case "K":
                del self.rows[self.row][0 if number == 2 else self.column :]
            case "J":
                del self.rows[self.row][self.column :]
                del self.rows[self.row + 1 :]
            case _:
                assert control in "mhl", control


@contextmanager
def terminal(width: int) -> Iterator[Screen]:
    """A terminal of that width; what is started on ``theirs`` has it for its own."""
    ours, theirs = pty.openpty()
    resize(theirs, width)
    screen = Screen(width, ours, theirs)
    try:
        yield screen
    finally:
        os.close(ours)
        if screen.theirs >= 0:
            os.close(screen.theirs)


def resize(theirs: int, width: int) -> None:
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))


def take_terminal() -> None:
    """In a new session, make the terminal on stdin its own: Ctrl-C reaches the processes in it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
