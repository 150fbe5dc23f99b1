"""A user's project in a folder: manifests, plugins and the command, as tests use them.

Plugins are real: a module and a ``.dist-info`` with entry points on ``PYTHONPATH``.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from runner import testing
from runner.testing import Outcome

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from runner.machine.describe import Machine

__all__ = ["Outcome", "Project"]

TESTS = Path(__file__).parent


class Project(testing.Project):
    """A project with packages of its own to import."""

    may_start: ClassVar[bool] = True
    """Whether the command may be started; with ``--fast`` a test that does is skipped: each takes seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.packages = folder / "packages"
        places = (self.packages, TESTS / "warm")
        self.environment |= {
            "HF_HOME": str(folder / "hub"),
            "PYTHONPATH": os.pathsep.join(map(str, places)),
        }
        self.environment.pop("HF_HUB_OFFLINE", None)
        (folder / "cache").mkdir(exist_ok=True)
        shared = os.environ.get("RUNNER_TESTS_SHARED")  # benchmarks have none
        if shared and not (folder / "cache/agreed").exists():  # a copy of a project has it
            # whether files fit their classes is asked of a fresh process, in seconds: once for all tests
            agreed = Path(shared, "agreed")
            agreed.mkdir(exist_ok=True)
            (folder / "cache/agreed").symlink_to(agreed)

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
        if not self.may_start:
            pytest.skip("it starts the command")
        return super().start(*arguments, **options)

    def invoke(self, *arguments: str, machine: Machine | None = None) -> Outcome:
        """The command in this process: quick, for what starts no worker. It plans for ``machine``, if given."""
        from runner.cli import main

        stdout, stderr = io.StringIO(), io.StringIO()
        with self.as_environment(), redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                main(list(arguments), machine)
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Outcome(["runner", *arguments], code, stdout.getvalue(), stderr.getvalue())

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """Folder, environment and import path of this process as the command would have them."""
        with pytest.MonkeyPatch.context() as patch:
            self._forget_other_plugins()
            patch.chdir(self.folder)
            patch.syspath_prepend(str(self.packages))
            for name in ("RUNNER_CACHE", "HF_HOME", "COLUMNS", "NO_COLOR"):
                patch.setenv(name, self.environment[name])
            yield

    def _forget_other_plugins(self) -> None:
        """Plugins of earlier projects may have the same names, and are imported already."""
        ours = str(self.packages)
        for name, module in list(sys.modules.items()):
            # a quick look at the text: there are thousands of modules
            folder = (getattr(module, "__file__", None) or "").rpartition(os.sep)[0]
            if folder.endswith(f"{os.sep}{self.packages.name}") and folder != ours:
                del sys.modules[name]

    def files(self) -> set[str]:
        """Everything in the folder that is not an installed package or a cache."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path.relative_to(self.folder).parts[0] not in ("packages", "cache", "hub")
        }
