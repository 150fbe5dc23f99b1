"""A project with a plugin whose parameters are files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from file_plugin import ITEM, PLUGIN, STAGES

if TYPE_CHECKING:
    from project import Project


@pytest.fixture
def look(project: Project) -> Project:
    project.plugin("look", PLUGIN)
    project.write("pics/fox.txt", "a fox")
    project.write("pics/owl.txt", "an owl")
    project.write("frames/1.txt", "first")
    project.write("frames/2.txt", "second")
    project.write("look.toml", STAGES + ITEM)
    return project
