"""``runner plugins new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from runner.cli.options import Json
from runner.cli.output import print_json, say
from runner.errors import ExitCode


def new_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What manifests write before the dot, such as blur.")
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="DIR", help="Where to write it; by default ./NAME."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a plugin to start from: it installs, runs, and passes its own tests as it is.

    Example: runner plugins new blur
    """
    from runner.plugin_check.scaffold import Names, scaffold

    names = Names.of(name)
    folder = output or Path(names.folder)
    files = scaffold(names, folder)
    if as_json:
        written = {"name": names.name, "distribution": names.distribution, "package": names.package}
        print_json({**written, "folder": folder, "files": files})
        return ExitCode.DONE
    for path in files:
        print(path)  # noqa: T201 - the command's data
    say(f"""
{names.distribution} is a working plugin with one stage, {names.name}.paint. Now:

  cd {folder}
  pip install -e ".[test]"
  pytest
  runner run example.toml""")
    return ExitCode.DONE
