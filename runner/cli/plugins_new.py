"""``runner plugins new``."""

from __future__ import annotations

from pathlib import Path

from runner.cli.common import print_json, say
from runner.errors import ExitCode
from runner.plugin_check.scaffold import Names, scaffold


def new(given: str, output: Path | None, *, as_json: bool) -> int:
    """Write a plugin, and say what to do with it."""
    names = Names.of(given)
    folder = output or Path(names.folder)
    files = scaffold(names, folder)
    if as_json:
        written = {"name": names.name, "distribution": names.distribution, "package": names.package}
        print_json({**written, "folder": str(folder), "files": [str(path) for path in files]})
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
