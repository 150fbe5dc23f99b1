from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scripted import ITEMS, first_stage
from scripted_chain import CHAIN, MANIFEST
from toy_plugin import STAGES

if TYPE_CHECKING:
    from project import Project
    from scripted import Stage


@pytest.fixture
def chain(project: Project) -> Project:
    """Three stages, each made from the one before, for items ``a`` and ``b``."""
    project.plugin("chain", CHAIN)
    project.write("chain.toml", MANIFEST)
    return project


@pytest.fixture
def stage(toy: Project) -> Stage:
    """A stage of three items, ``a`` to ``c``, of which the last has another one of its key, ``d``."""
    toy.write("toy.toml", STAGES + ITEMS + '[[item]]\nid = "d"\nprompt = "c"\n')
    return first_stage(toy, "toy.toml")
