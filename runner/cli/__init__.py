"""The command line: one module a group of commands, nothing heavy before a command runs."""

from __future__ import annotations

import contextlib
import os
import sys

from runner.cli.output import OutputError, exit_code, guarded, say, tell_bug
from runner.errors import ExitCode, RunnerError


def main(arguments: list[str] | None = None) -> None:
    """The command ``runner``. Every user error ends here, as a message and an exit code."""
    with guarded() as stdout:
        code = exit_code(stdout, _call(sys.argv[1:] if arguments is None else arguments))
    if code == ExitCode.INTERRUPTED:
        # at once: threads that download cannot be stopped, and an exit would wait for them
        os._exit(code)
    sys.exit(code)


def _call(arguments: list[str]) -> int:
    from runner.cli.app import app, complete_fresh

    given = complete_fresh(arguments)
    try:
        return int(app(args=given, prog_name="runner", standalone_mode=False) or 0)
    except OutputError:
        return ExitCode.DONE  # what it means is for exit_code() to say
    except RunnerError as error:
        say(f"{error.prefix}{error}")
        prints_events = given[0] in ("run", "demo") and "--dry-run" not in given
        if "--json" in given and not prints_events:
            _print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as stop:  # typer's, when it has written a shell's completions
        return int(stop.code or 0)
    except Exception as error:
        return _usage_or_bug(error)


def _print_error(error: RunnerError) -> None:
    """For a program that asked for JSON, and got none before the error."""
    import json

    told = {"ok": False, "exit_code": int(error.exit_code), "error": str(error)}
    problems = [problem.as_dict() for problem in getattr(error, "problems", ())]  # of a manifest
    with contextlib.suppress(OutputError):
        print(json.dumps({**told, "problems": problems}))  # noqa: T201


def _usage_or_bug(error: Exception) -> int:
    """Typer's own errors know how to show themselves and their exit code; all else is our bug."""
    if type(error).__name__ in ("Abort", "Exit"):
        return int(getattr(error, "exit_code", ExitCode.INTERRUPTED))
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", ExitCode.USAGE))
    return tell_bug()
