from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import toy_plugin
from project import Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def toy(project: Project) -> Project:
    """A project with a plugin of two small stages that need no model, and a manifest for them."""
    project.plugin("toy", toy_plugin.TOY)
    project.write("toy.toml", toy_plugin.MANIFEST)
    (project.folder / "flags").mkdir()
    project.environment["TOY_FLAGS"] = str(project.folder / "flags")
    return project
