from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import toy_plugin
from project import Project

if TYPE_CHECKING:
    from pathlib import Path

# its last stage leaves numbers: hand-offs are what it is for
NUMBERS = toy_plugin.MANIFEST.partition('[[stage]]\nname = "write"')[0].replace('"toy"', '"numbers"')
FAILING = toy_plugin.BEHAVING.format("raise").replace('"toy"', '"failing"')


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories of three manifests, each run once: ``toy``, ``numbers`` and ``failing``."""
    project = Project(tmp_path_factory.mktemp("finished"))
    write_manifests(project)
    outcome = project.runner("run", "*.toml")
    assert outcome.code == 1, outcome
    return project.folder / "runs"


@pytest.fixture
def ran(toy: Project, finished: Path) -> Project:
    """A project whose manifests ``toy.toml``, ``numbers.toml`` and ``failing.toml`` were run."""
    write_manifests(toy)
    shutil.copytree(finished, toy.folder / "runs")
    for journal in (toy.folder / "runs").glob("*/journal.jsonl"):  # which says where a manifest is
        journal.write_text(journal.read_text().replace(str(finished.parent), str(toy.folder)))
    return toy


def write_manifests(project: Project) -> None:
    project.plugin("toy", toy_plugin.TOY)
    project.write("toy.toml", toy_plugin.MANIFEST)
    batch = '[batch]\nprompts = ["one", "two"]\n'
    project.write("numbers.toml", NUMBERS + batch)
    project.write("failing.toml", FAILING)
