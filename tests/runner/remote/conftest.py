"""The toy's project for runs over several nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nodes import SENT

if TYPE_CHECKING:
    from project import Project


@pytest.fixture
def sent(toy: Project) -> Project:
    """The toy's project, whose agents send their results."""
    toy.environment |= SENT
    return toy
