"""An environment to install plugins into: its own scripts and packages, ours to import, and no network."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from typing import TYPE_CHECKING

from runner.testing import Outcome

if TYPE_CHECKING:
    from pathlib import Path


class Environment:
    """A virtual environment; what is installed here is seen there, and nothing the other way."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder)
        python = folder / "bin/python"
        (packages,) = (folder / "lib").glob("python*/site-packages")
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        for command in ("pip", "pytest", "runner"):
            script = folder / "bin" / command
            script.write_text(f'#!/bin/sh\nexec "{python}" -m {command} "$@"\n')
            script.chmod(0o755)
        self.variables = {
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "RUNNER_CACHE": str(folder / "cache"),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip spells that there is none
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        for name in ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "VIRTUAL_ENV"):
            self.variables.pop(name, None)

    def shell(self, script: str, folder: Path) -> Outcome:
        """Run commands as a reader would type them, up to the first that fails."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=folder,
            env=self.variables,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=200,
        )
        return Outcome([script], done.returncode, done.stdout, done.stderr)
