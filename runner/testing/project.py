"""A folder with manifests, in which tests run the ``runner`` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pytest reads the fixture's annotations
from textwrap import dedent
from typing import Any

import pytest


@dataclass
class Outcome:
    """The result of a command; its repr, which a failing assertion shows, has the output in full."""

    command: list[str]
    code: int
    stdout: str
    stderr: str

    def __repr__(self) -> str:
        command = f"\n$ {' '.join(self.command)}\nexit code {self.code}\n"
        return f"{command}--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}\n"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON objects that ``--json`` printed, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [e for e in self.events if e["event"] == event]


class Project:
    """A folder to run ``runner`` in. Its cache, such as hashes of models, is in the folder too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "RUNNER_CACHE": str(folder / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file; text is dedented, so that it may be indented like the test's code."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``runner`` with these arguments; ``options`` are those of :class:`subprocess.Popen`."""
        return subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )

    def runner(self, *arguments: str, seconds: float = 200) -> Outcome:
        """Run ``runner`` with these arguments.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds.

        """
        with self.start(*arguments) as process:
            try:
                stdout, stderr = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Outcome(["runner", *arguments], process.returncode, stdout, stderr)

    def outputs(self, name: str) -> dict[str, bytes]:
        """The contents of the run's output files, by file name."""
        return {p.name: p.read_bytes() for p in sorted((self.folder / "runs" / name / "outputs").iterdir())}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in an empty folder."""
    return Project(tmp_path)
