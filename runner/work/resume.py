"""Reads the headers of interrupted items' saved states."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from runner.files.header import HeaderError, read_header

if TYPE_CHECKING:
    from pathlib import Path


class SavedStep(NamedTuple):
    """The last step before a state was saved, and the number of all steps."""

    step: int
    steps: int


def saved_step(state: Path, key: str) -> SavedStep | None:
    """The step that an item would resume after; None if there is no valid state for its key.

    Only the worker checks that device, versions and threads are those that it was saved with.
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
