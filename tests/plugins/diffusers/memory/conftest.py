"""Tiny checkpoints for all tests of this folder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from tiny_cases import case_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_cases import Case


@pytest.fixture(scope="session")
def tiny_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """Makes a case of a tiny model, by its name and parameters."""
    return partial(case_of, tmp_path_factory.mktemp("tiny"))
