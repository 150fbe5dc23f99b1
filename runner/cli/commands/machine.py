"""Commands about the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli.options import RUNS, Json

commands = typer.Typer()


@commands.command()
def doctor(
    no_disk: Annotated[
        bool, typer.Option("--no-disk", help="Measure no disk; the last measurement is shown.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Look at devices, memory, disks, versions and plugins, and say what to do about what is amiss.

    Measures disks by writing and reading a temporary file of 512 MiB.

    Example: runner doctor --no-disk
    """
    from runner.cli.doctor import doctor as examine

    return examine(as_json=as_json, measure_disks=not no_disk, runs=RUNS)
