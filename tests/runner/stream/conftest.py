from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]  # elsewhere everything stays


@pytest.fixture(autouse=True)
def as_in_a_worker() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
