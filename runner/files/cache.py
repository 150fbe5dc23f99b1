"""The cache folder, and files in it that hold JSON values by key."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from runner.errors import StorageError
from runner.files.storage import write_atomically


def cache_folder() -> Path:
    """The folder for data that can be computed again: ``RUNNER_CACHE``, else in the user's cache folder."""
    if own := os.environ.get("RUNNER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "runner"


def cached_values(file: str) -> dict[str, object]:
    """All values of a cache file, by key; empty if it is missing or damaged."""
    try:
        found = json.loads((cache_folder() / file).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def cache_value(file: str, key: str, value: object) -> None:
    """Add JSON data to a cache file; where the cache cannot be written, it is computed again next time."""
    values = {**cached_values(file), key: value}
    with contextlib.suppress(StorageError):
        write_atomically(cache_folder() / file, json.dumps(values).encode())
