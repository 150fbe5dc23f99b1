"""A user's project in a folder: manifests, plugins and the command, as tests use them.

Plugins are real: a module and a ``.dist-info`` with entry points on ``PYTHONPATH``.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Outcome:
    """What a command did; its repr is what a failing assertion shows."""

    command: list[str]
    code: int
    stdout: str
    stderr: str

    def __repr__(self) -> str:
        told = f"\n$ {' '.join(self.command)}\nexit code {self.code}\n"
        return f"{told}--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}\n"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == event]


class Project:
    """A folder with the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "packages"
        self.environment = {
            **os.environ,
            "RUNNER_CACHE": str(folder / "cache"),
            "HF_HOME": str(folder / "hub"),
            "PYTHONPATH": str(self.packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        self.environment.pop("HF_HUB_OFFLINE", None)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def plugin(
        self, name: str, source: str, entry: str | None = None, distribution: str | None = None
    ) -> None:
        """Install a plugin: a module of that name, found through its distribution's entry point."""
        distribution = distribution or f"{name}-plugin"
        self.write(f"packages/{name}.py", source)
        info = f"packages/{distribution.replace('-', '_')}-1.0.dist-info"
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        self.write(f"{info}/entry_points.txt", f"[runner]\n{entry or name} = {name}\n")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def runner(self, *arguments: str) -> Outcome:
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=200)
        return Outcome(["runner", *arguments], process.returncode, stdout, stderr)

    def invoke(self, *arguments: str) -> Outcome:
        """The command in this process: quick, for what starts no worker."""
        from runner.cli import main

        stdout, stderr = io.StringIO(), io.StringIO()
        with self.as_environment(), redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                main(list(arguments))
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Outcome(["runner", *arguments], code, stdout.getvalue(), stderr.getvalue())

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """Folder, environment and import path of this process as the command would have them."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.syspath_prepend(str(self.packages))
            for name in ("RUNNER_CACHE", "HF_HOME", "COLUMNS", "NO_COLOR"):
                patch.setenv(name, self.environment[name])
            yield

    def files(self) -> set[str]:
        """Everything in the folder that is not an installed package or a cache."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path.relative_to(self.folder).parts[0] not in ("packages", "cache", "hub")
        }

    def outputs(self, name: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted((self.folder / "runs" / name / "outputs").iterdir())}
