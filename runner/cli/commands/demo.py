"""``runner demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from runner.cli.options import RUNS, Force, Json, RunsDir
from runner.cli.typer_app import App

commands = App()


@commands.command()
def demo(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NAME", help="The demo, where the installed plugins have several."),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="FILE", help="Write the manifest there; else under its name."),
    ] = None,
    force: Force = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Write a plugin's demo manifest into this folder and run it. Needs no download, token or GPU.

    A file that is there already is run if it is the same manifest, and not overwritten if it is another.

    Example: runner demo
    """
    from runner.cli.common import Options
    from runner.cli.demo import demo as write_and_run

    return write_and_run(name, out, Options(runs_dir=runs_dir, as_json=as_json), force=force)
