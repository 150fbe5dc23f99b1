from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[int, Any, int], int]

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]  # elsewhere everything stays


@pytest.fixture(autouse=True)
def as_in_a_worker() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@pytest.fixture
def read_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Read], None]:
    """Have this test's files read by another function than ``os.preadv``.

    Others are read as ever: threads of earlier tests may still be reading ahead.
    """
    whole = os.preadv

    def change(read: Read) -> None:
        def preadv(descriptor: int, buffers: Any, offset: int) -> int:
            path = Path("/proc/self/fd", str(descriptor)).readlink()
            return (read if path.is_relative_to(tmp_path) else whole)(descriptor, buffers, offset)

        monkeypatch.setattr(os, "preadv", preadv)

    return change
