from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pages import Telling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def reported(tmp_path: Path) -> Iterator[Telling]:
    telling = Telling(tmp_path)
    yield telling
    telling.journal.close()
