"""Errors in a manifest: all are collected, and each is shown with its position, source line and a caret."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.errors import ExitCode, RunnerError
from runner.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


# limits of messages: a file may be one long line, or have thousands of errors
PROBLEMS_LIMIT = 200
MESSAGE_LIMIT = 1000  # characters
SOURCE_LIMIT = 200  # characters before and after the position
WORD_LIMIT = 100  # characters of a word for which a similar one is suggested
# control characters, which could change a terminal's state
_CONTROL = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\ufffd")


@dataclass(frozen=True)
class Position:
    """A position in a text. Lines and columns count from 1; 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0
    source: str = ""
    is_override: bool = False
    """Whether it is a command line option, which ``file`` then holds."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One error: position, message and exit code."""

    where: Position
    message: str
    exit_code: ExitCode = ExitCode.MANIFEST

    def __str__(self) -> str:
        text = f"{self.where}: {_shown(self.message[:MESSAGE_LIMIT])}"
        if not self.where.source.strip():
            return text
        start = max(0, self.where.column - SOURCE_LIMIT)
        source = self.where.source[start : start + 2 * SOURCE_LIMIT]
        # tabs are kept so that the caret stands under its character
        margin = "".join("\t" if c == "\t" else " " for c in source[: self.where.column - 1 - start])
        return f"{text}\n    {_shown(source)}\n    {margin}^"

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.where.file,
            "line": self.where.line,
            "column": self.where.column,
            "message": redact(self.message),
        }


class ManifestError(RunnerError):
    """All errors of a manifest, sorted by position, without duplicates."""

    prefix = ""  # each line starts with its position, as editors expect

    def __init__(self, problems: Iterable[Problem]) -> None:
        in_order = sorted(problems, key=lambda p: (p.where.file, p.where.line, p.where.column))
        self.problems = list(dict.fromkeys(in_order))
        left = len(self.problems) - PROBLEMS_LIMIT
        more = [f"... and {left} more like these"] if left > 0 else []
        super().__init__("\n".join([*map(str, self.problems[:PROBLEMS_LIMIT]), *more]))

    @property
    def messages(self) -> str:
        """The messages without positions: for a generated manifest."""
        return "; ".join(dict.fromkeys(problem.message for problem in self.problems))

    @property
    def exit_code(self) -> ExitCode:  # type: ignore[override]
        """That of a wrong command line first, then of the manifest, then of what it refers to."""
        codes = {problem.exit_code for problem in self.problems}
        order = (ExitCode.USAGE, ExitCode.MANIFEST)
        return next((code for code in order if code in codes), max(codes))


@dataclass
class Problems:
    """Collects errors, so that all of them are shown at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, where: Position, message: str, exit_code: ExitCode = ExitCode.MANIFEST) -> None:
        self.found.append(Problem(where, message, exit_code))

    @contextlib.contextmanager
    def errors_at(self, where: Position) -> Iterator[None]:
        """Add a RunnerError raised in the block as a problem at this position, instead of raising it."""
        try:
            yield
        except RunnerError as error:
            self.add(where, str(error), error.exit_code)

    def check(self) -> None:
        """Raise a ManifestError if anything was added."""
        if self.found:
            raise ManifestError(self.found)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message; empty if no known word is similar."""
    if len(word) > WORD_LIMIT:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _shown(text: str) -> str:
    return text.translate(_CONTROL)
