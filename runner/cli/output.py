"""Standard output and standard error of a command, and what becomes of them where they cannot be written."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from runner.errors import ExitCode, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class OutputError(StorageError):
    """Standard output cannot be written. No ``OSError``, which the libraries that print would handle."""


class Output:
    """A text stream whose first failing write ends it: what is written after that is dropped.

    ``raises``: the failing write raises :class:`OutputError`, whoever it is made by (print, rich, typer).
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
    """A stream that cannot be written, for a command that was started without one."""
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")


@contextlib.contextmanager
def guarded() -> Iterator[Output]:
    """Have writes to standard output fail as :class:`OutputError`, and those to standard error not at all."""
    stdout = Output(sys.stdout, raises=True)
    stderr = Output(sys.stderr, raises=False)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield stdout


def exit_code(stdout: Output, code: int) -> int:
    """A command's exit code, once all it printed is written or failed to be, which is said on stderr.

    A reader that has gone (``runner plan M | head -1``) is no failure.
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
    """Tell a person something: on stderr, since stdout is for data."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def tell_bug() -> ExitCode:
    """Tell of the exception that is being handled, which nobody expected."""
    import traceback

    from runner.redact import redact

    say(
        f"{redact(traceback.format_exc())}\n"
        "This is a bug of runner's own; please report it with the traceback above."
    )
    return ExitCode.BUG
