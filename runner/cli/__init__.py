"""The command line: one module a group of commands, nothing heavy before a command runs."""

from __future__ import annotations

import os
import sys

from runner.errors import ExitCode, RunnerError


def main(arguments: list[str] | None = None) -> None:
    """The command ``runner``. Every user error ends here, as a message and an exit code."""
    from runner.cli.app import app, complete_fresh

    given = complete_fresh(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given, prog_name="runner", standalone_mode=False)
    except RunnerError as error:
        print(f"{error.prefix}{error}", file=sys.stderr)  # noqa: T201
        code = error.exit_code
        prints_events = given[0] in ("run", "demo") and "--dry-run" not in given
        if "--json" in given and not prints_events:  # they say it
            _print_error(error)
    except BrokenPipeError:  # the reader of our output has gone, which is its right
        sys.stderr.close()
        code = ExitCode.DONE
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        code = _usage_or_bug(error)
    if code == ExitCode.INTERRUPTED:
        # at once: threads that download cannot be stopped, and an exit would wait for them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(int(code or 0))


def _print_error(error: RunnerError) -> None:
    """For a program that asked for JSON, and got none before the error."""
    import json

    told = {"ok": False, "exit_code": int(error.exit_code), "error": str(error)}
    problems = [problem.as_dict() for problem in getattr(error, "problems", ())]  # of a manifest
    print(json.dumps({**told, "problems": problems}), flush=True)  # noqa: T201


def _usage_or_bug(error: Exception) -> int:
    """Typer's own errors know how to show themselves and their exit code; all else is our bug."""
    if type(error).__name__ in ("Abort", "Exit"):
        return int(getattr(error, "exit_code", ExitCode.INTERRUPTED))
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", ExitCode.USAGE))
    return tell_bug()


def tell_bug() -> ExitCode:
    """Tell of the exception that is being handled, which nobody expected."""
    import traceback

    from runner.redact import redact

    print(  # noqa: T201
        f"{redact(traceback.format_exc())}\n"
        "This is a bug of runner's own; please report it with the traceback above.",
        file=sys.stderr,
    )
    return ExitCode.BUG
