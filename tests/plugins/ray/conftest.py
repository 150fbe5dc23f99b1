from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plugins.ray.ray_runs import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes of one processor each, and a head without any."""
    made = Cluster(3)
    yield made
    made.close()
