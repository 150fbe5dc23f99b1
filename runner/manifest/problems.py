"""What is wrong with a manifest: every problem, each with its place, the source line and a caret."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.errors import ExitCode, RunnerError
from runner.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


# of what is shown: a file may be all one line, or all wrong
PROBLEMS_LIMIT = 200
MESSAGE_LIMIT = 1000  # characters
SOURCE_LIMIT = 200  # characters before and after the place
WORD_LIMIT = 100  # characters of a word that a person meant as another
# characters that do something to a terminal
_CONTROL = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\ufffd")


@dataclass(frozen=True)
class Position:
    """A place in a text; lines and columns count from 1, 0 where there is none to point at."""

    file: str
    line: int = 0
    column: int = 0
    source: str = ""
    is_override: bool = False
    """Whether it is on the command line: ``file`` is the option then."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    where: Position
    message: str
    exit_code: ExitCode = ExitCode.MANIFEST

    def __str__(self) -> str:
        text = f"{self.where}: {_shown(self.message[:MESSAGE_LIMIT])}"
        if not self.where.source.strip():
            return text
        start = max(0, self.where.column - SOURCE_LIMIT)
        source = self.where.source[start : start + 2 * SOURCE_LIMIT]
        # a caret must stand under its character: tabs are kept, all else becomes a space
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
    """Everything that is wrong with a manifest, at once."""

    prefix = ""  # each line starts with its place, as editors expect

    def __init__(self, problems: Iterable[Problem]) -> None:
        in_order = sorted(problems, key=lambda p: (p.where.file, p.where.line, p.where.column))
        self.problems = list(dict.fromkeys(in_order))
        left = len(self.problems) - PROBLEMS_LIMIT
        more = [f"... and {left} more like these"] if left > 0 else []
        super().__init__("\n".join([*map(str, self.problems[:PROBLEMS_LIMIT]), *more]))

    @property
    def messages(self) -> str:
        """What is wrong, without the places: for a manifest that nobody wrote."""
        return "; ".join(dict.fromkeys(problem.message for problem in self.problems))

    @property
    def exit_code(self) -> ExitCode:  # type: ignore[override]
        """A wrong command line comes first, then the manifest itself, then what it needs."""
        codes = {problem.exit_code for problem in self.problems}
        order = (ExitCode.USAGE, ExitCode.MANIFEST)
        return next((code for code in order if code in codes), max(codes))


@dataclass
class Problems:
    """Collects problems, so that all are shown and not the first alone."""

    found: list[Problem] = field(default_factory=list)

    def add(self, where: Position, message: str, exit_code: ExitCode = ExitCode.MANIFEST) -> None:
        self.found.append(Problem(where, message, exit_code))

    @contextlib.contextmanager
    def errors_at(self, where: Position) -> Iterator[None]:
        """Have a user error raised within be a problem at that place, and go on."""
        try:
            yield
        except RunnerError as error:
            self.add(where, str(error), error.exit_code)

    def check(self) -> None:
        """Raises:
        ManifestError: something was added.
        """
        if self.found:
            raise ManifestError(self.found)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to end a message with, or nothing where no known word is near."""
    if len(word) > WORD_LIMIT:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _shown(text: str) -> str:
    return text.translate(_CONTROL)
