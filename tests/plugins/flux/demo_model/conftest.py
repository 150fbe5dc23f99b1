"""Shared by the demo model's tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """The same randomness in every run."""
    return np.random.default_rng(7)
