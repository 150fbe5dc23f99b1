"""What a command writes to stdout and stderr: data, lines and errors, and what happens when a write fails."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from runner.errors import ExitCode, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from runner.errors import RunnerError


_KEPT: list[TextIO] = []
"""The stdout of blocks in which it is kept for data."""


class OutputError(StorageError):
    """Standard output cannot be written. Not an ``OSError``: libraries that print would handle that."""


class Output:
    """A text stream that drops everything after its first failed write.

    With ``raises`` the failed write raises :class:`OutputError`, in print, rich and typer alike.
    """

    def __init__(self, stream: TextIO | None, *, raises: bool) -> None:
        self._stream = stream or _closed()
        self._raises = raises
        self.failure: OSError | None = None
        if not (self._stream.encoding or "utf-8").lower().startswith("utf"):
            reconfigure = getattr(self._stream, "reconfigure", lambda **_: None)
            reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._watched():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        with self._watched():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._end(error)
            if self._raises:
                raise OutputError(_reason(error)) from error

    def _end(self, error: OSError) -> None:
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # takes what the stream still holds, and all that follows
        os.close(nowhere)


def _closed() -> TextIO:
    """A stream that cannot be written, for a command that was started without stdout or stderr."""
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")


@contextlib.contextmanager
def guarded() -> Iterator[Output]:
    """Failed writes to stdout raise :class:`OutputError`; failed writes to stderr are ignored."""
    stdout = Output(sys.stdout, raises=True)
    stderr = Output(sys.stderr, raises=False)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield stdout


def exit_code(stdout: Output, code: int) -> int:
    """Flush stdout and return the command's exit code, which is at least STORAGE if a write failed.

    A closed pipe (``runner plan M | head -1``) is no failure.
    """
    with contextlib.suppress(OutputError):
        stdout.flush()
    if stdout.failure is not None and not isinstance(stdout.failure, BrokenPipeError):
        say(f"error: standard output cannot be written: {_reason(stdout.failure)}")
        code = max(code, ExitCode.STORAGE)
    sys.stderr.flush()
    return code


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def say(line: str) -> None:
    """Print a message for people on stderr; stdout is for data."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def say_error(error: RunnerError) -> None:
    """Print the message of an error on stderr."""
    say(f"{error.prefix}{error}")


def print_json(value: Any) -> None:
    """Print a JSON value as one line on stdout. Paths become strings, exit codes numbers."""
    stdout = _KEPT[-1] if _KEPT else sys.stdout
    print(json.dumps(value, default=os.fspath), file=stdout, flush=True)


@contextlib.contextmanager
def kept_for_data() -> Iterator[None]:
    """Inside, stdout is :func:`print_json`'s alone: what plugins and their libraries print goes to stderr."""
    _KEPT.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _KEPT.pop()


def print_error(error: RunnerError, **facts: Any) -> None:
    """Print an error as a JSON object on stdout, for ``--json``."""
    print_json({"ok": False, "exit_code": error.exit_code, **facts, "error": str(error)})


def console(*, stderr: bool = False) -> Console:
    """A rich console: as wide as the terminal; in a file or a pipe as wide as the text."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else 4000
    return Console(stderr=stderr, width=wide, soft_wrap=True, highlight=False, markup=False)


def report_bug() -> ExitCode:
    """Print the traceback of the exception that is being handled, and ask for a bug report."""
    import traceback

    from runner.redact import redact

    say(
        f"{redact(traceback.format_exc())}\n"
        "This is a bug of runner's own; please report it with the traceback above."
    )
    return ExitCode.BUG
