"""Saved states of interrupted items, as far as their headers tell: no tensor is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from runner.files.header import HeaderError, read_header

if TYPE_CHECKING:
    from pathlib import Path


class SavedStep(NamedTuple):
    """The step that a saved state was taken after, and how many there are."""

    step: int
    steps: int


def saved_step(state: Path, key: str) -> SavedStep | None:
    """Where an item would go on from; None if nothing was saved under its key, or it is damaged.

    Whether device, versions and threads are those that it was saved with, only the worker finds out.
    """
    try:
        metadata = read_header(state).metadata
        if metadata["key"] != key:
            return None
        step, steps = (json.loads(metadata[name]) for name in ("step", "steps"))
    except (OSError, HeaderError, KeyError, ValueError, RecursionError):
        return None
    if not (type(step) is int and type(steps) is int and 0 < step <= steps):
        return None
    return SavedStep(step, steps)
