"""The command ``runner``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from runner.cli.output import OutputError, exit_code, guarded, print_error, report_bug, say_error
from runner.errors import ExitCode, RunnerError

if TYPE_CHECKING:
    from runner.machine.describe import Machine


def main(arguments: list[str] | None = None, machine: Machine | None = None) -> None:
    """Run the command and exit with its exit code; ``RunnerError`` becomes a message on stderr.

    Plans are made for ``machine``; by default for this one.
    """
    with guarded() as stdout:
        code = exit_code(stdout, _call(sys.argv[1:] if arguments is None else arguments, machine))
    if code == ExitCode.INTERRUPTED:
        # at once: threads that download cannot be stopped, and an exit would wait for them
        os._exit(code)
    sys.exit(code)


def _call(arguments: list[str], machine: Machine | None) -> int:
    from runner.cli.app import app, complete_fresh

    given = complete_fresh(arguments)
    try:
        return int(app(args=given, prog_name="runner", standalone_mode=False, obj=machine) or 0)
    except OutputError:
        return ExitCode.DONE  # exit_code() replaces it
    except RunnerError as error:
        say_error(error)
        prints_events = given[0] in ("run", "demo") and "--dry-run" not in given
        if "--json" in given and not prints_events:
            problems = [problem.as_dict() for problem in getattr(error, "problems", ())]  # of a manifest
            with contextlib.suppress(OutputError):
                print_error(error, problems=problems)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as stop:  # typer's, when it has written a shell's completions
        return int(stop.code or 0)
    except Exception as error:
        return _usage_or_bug(error)


def _usage_or_bug(error: Exception) -> int:
    """Show an error of typer's, which has its message and exit code; any other is a bug."""
    if type(error).__name__ in ("Abort", "Exit"):
        return int(getattr(error, "exit_code", ExitCode.INTERRUPTED))
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", ExitCode.USAGE))
    return report_bug()
