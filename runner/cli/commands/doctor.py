"""``runner doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.options import RUNS, Json
from runner.cli.output import console, print_json, say
from runner.cli.tables import CheckRow, check_table
from runner.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.cli.diagnosis import Check


def doctor(
    context: typer.Context,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Measure nothing; show the last measurements.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Check devices, memory, disks, versions and plugins, and give advice about what is wrong.

    Measures disks by writing and reading a temporary file of 512 MiB, and devices by computing for a second;
    plans take their times from that. Exits with 4 if a plugin is broken.

    Example: runner doctor --no-measure
    """
    from runner.accelerator.discovery import forget
    from runner.cli.diagnosis import diagnose
    from runner.machine.describe import Machine

    measure = not no_measure
    if measure:
        forget()
    if measure and not as_json:
        say("measuring disks and devices, up to 10 s each (--no-measure leaves it out) ...")
    checks = diagnose(context.obj or Machine.here(), RUNS, measure=measure)
    code = ExitCode.PLUGIN if any(check.broken for check in checks) else ExitCode.DONE
    if as_json:
        print_json({"ok": code == ExitCode.DONE, "exit_code": code, "checks": list(map(_as_json, checks))})
    else:
        shown = console()
        shown.print(check_table(CheckRow(c.status, c.name, c.message, c.advice) for c in checks))
        shown.print(f"\n{_summary(checks)}")
    return code


def _as_json(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "status": check.status,
        "message": check.message,
        "told": check.message,  # its name in earlier versions
        "advice": check.advice,
        **check.facts,
    }


def _summary(checks: Sequence[Check]) -> str:
    found = []
    for status, one, many in (("broken", "broken plugin", "broken plugins"), ("warn", "warning", "warnings")):
        if number := sum(check.status == status for check in checks):
            found.append(f"{number} {one if number == 1 else many}")
    return ", ".join(found) or "all is well"
