"""What commands share: loading a manifest with its plugins, and telling of plugins that are broken."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from runner.manifest.load import load
from runner.plan.pipeline import Pipeline, bind
from runner.plugins import Plugins, discover

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def open_pipeline(manifest: Path, sets: Sequence[str], prompts: Sequence[str]) -> Pipeline:
    """Load a manifest and bind it to the installed plugins.

    Raises:
        RunnerError: what is wrong with it.

    """
    loaded = load(manifest, sets, prompts)
    plugins = discover()
    warn(plugins)
    return bind(loaded, plugins)


def warn(plugins: Plugins) -> None:
    """A line for each plugin that is set aside."""
    for broken in plugins.broken:
        say(f"warning: {broken}")


def say(line: str) -> None:
    """Tell a person something: stderr, since stdout is for data."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def print_json(value: Any) -> None:
    """Data for a program: one JSON value a line on stdout."""
    print(json.dumps(value), flush=True)  # noqa: T201
