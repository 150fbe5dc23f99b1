from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pipeline_cases import write_pictures
from tiny_models import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint by its name, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("tiny")
    return lambda name: checkpoint(name, folder)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The test's folder, with the pictures that cases name."""
    write_pictures(tmp_path)
    return tmp_path
