"""Commands about the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli.options import RUNS, Json
from runner.cli.typer_app import App

commands = App()


@commands.command()
def doctor(
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Measure nothing; the last measurements are shown.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Look at devices, memory, disks, versions and plugins, and say what to do about what is amiss.

    Measures disks by writing and reading a temporary file of 512 MiB, and devices by computing for a second;
    plans take their times from that.

    Example: runner doctor --no-measure
    """
    from runner.cli.doctor import doctor as examine

    return examine(as_json=as_json, measure=not no_measure, runs=RUNS)
