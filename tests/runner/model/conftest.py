"""A project whose VAE comes from a folder of its own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from parts import MANIFEST, WITHOUT

if TYPE_CHECKING:
    from project import Project


@pytest.fixture
def parted(project: Project) -> Project:
    shutil.copytree(DEMO / "vae", project.folder / "my-vae")
    project.write("parts.toml", MANIFEST)
    project.write("without.toml", WITHOUT)
    return project
