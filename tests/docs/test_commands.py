"""Every command that a document shows runs as it is written, in a folder with the repository's files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from described import published
from hub import Hub, Repository
from large import make_full_flux
from published_families import publish

from runner.errors import ExitCode
from runner.testing import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# the README first: it makes what the others look at; the guide to plugins has a test of its own
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
BLOCKS = [
    block for path in DOCUMENTS for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
]
LINES = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = list(dict.fromkeys(LINES))
# what a test cannot run, and why; their beginnings
ELSEWHERE = {
    "make ": "the whole check runs them in a fresh clone",
    "pip install": "the whole check installs the wheels",
    "python -m venv": "the Makefile's own way, without make",
    ".venv/bin/pip": "it installs from the network",
    ".venv/bin/pytest": "these tests",
    "python tests/bench/accelerator.py": "it needs an accelerator; tests/test_accelerator_bench.py starts it",
    "docker ": "it needs a daemon and the network; tests/packaging reads the commands",
    "runner doctor": "it measures for long; its own tests run it",
    "hf auth login": "the hub's own client asks for a token",
    "runner fetch flux.toml": "it downloads 34 GB; tests/runner/cli/commands/test_fetch.py has small models",
    "ray ": "it needs Ray; tests/plugins/ray has clusters",
    "runner run night.toml --executor ray": "likewise",
    "systemctl ": "there is no service manager in a test; tests/packaging has systemd read the units",
    "loginctl ": "likewise",
    "journalctl ": "likewise",
}
# what those exit with that do not succeed on a machine without a card
ENDS = dict.fromkeys(("runner run flux.toml", "runner run klein.toml"), ExitCode.BUDGET)


def runs_here(command: str) -> bool:
    return not command.startswith(tuple(ELSEWHERE))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A folder with the command on its path, and a hub that has FLUX.1-dev's published headers."""
    folder = tmp_path_factory.mktemp("clone")
    folders = tmp_path_factory.mktemp("published")
    models = {
        "black-forest-labs/FLUX.1-dev": make_full_flux(folders / "flux"),
        "black-forest-labs/FLUX.2-klein-4B": publish("klein", folders / "klein"),
    }
    with Hub({name: Repository(published(model)) for name, model in models.items()}).served() as hub:
        clone = Clone(folder, hub.url)
        yield clone


class Clone:
    """The repository's files for users, with the command on the path."""

    def __init__(self, folder: Path, hub: str) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "packaging", folder / "packaging")
        commands = folder / "bin"
        commands.mkdir(parents=True)
        (commands / "runner").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m runner "$@"\n')
        (commands / "runner").chmod(0o755)
        night = folder / "night/first.toml"
        night.parent.mkdir()
        demo = (ROOT / "manifests/demo.toml").read_text()
        night.write_text(demo.replace('name = "demo"', 'name = "first"').replace("steps = 12", "steps = 2"))
        self.environment = {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "HF_HOME": str(folder / "hub"),
            "HF_ENDPOINT": hub,
            "RUNNER_CACHE": str(folder / "cache"),
            "NO_COLOR": "1",
        }
        self.environment.pop("HF_HUB_OFFLINE", None)

    def type(self, command: str) -> Outcome:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=200,
        )
        return Outcome([command], done.returncode, done.stdout, done.stderr)


def test_every_command_is_known_to_run_here_or_elsewhere() -> None:
    assert len([command for command in COMMANDS if runs_here(command)]) >= 15
    for beginning in ELSEWHERE:
        assert any(command.startswith(beginning) for command in COMMANDS), beginning
    assert ENDS.keys() <= {*COMMANDS}


@pytest.mark.timeout(600)  # a dozen commands, of which some draw
def test_they_run_as_they_are_written(clone: Clone) -> None:
    """In their order: later ones look at what earlier ones made."""
    for command in filter(runs_here, COMMANDS):
        outcome = clone.type(command)
        assert outcome.code == ENDS.get(command, ExitCode.DONE), outcome
        assert "Traceback" not in outcome.stderr, outcome
