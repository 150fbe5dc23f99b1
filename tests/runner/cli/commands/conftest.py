from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from project import Project
from reproduced import CHAIN, MANIFEST

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose batch has been made."""
    project = Project(tmp_path_factory.mktemp("chained"))
    project.plugin("chain", CHAIN)
    project.write("sub/chain.toml", MANIFEST)
    project.write("sub/items.csv", "prompt,loudness,seed\nan owl,3dB,4\n")
    project.write("sub/models/one/part/config.json", '{"scale": 1.0}')
    project.write("elsewhere/two/part/config.json", '{"scale": 0.5}')
    outcome = project.runner("run", "sub/chain.toml")
    assert outcome.code == 0, outcome
    return project.folder


@pytest.fixture
def again(chained: Path, tmp_path: Path) -> Project:
    """A copy of it that a test may change. The models, named by where they lay, stay where they were."""
    shutil.copytree(chained, tmp_path / "copy")
    return Project(tmp_path / "copy")
