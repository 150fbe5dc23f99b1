"""The progress of a run: a live line under plain ones on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, Self

from runner.cli.display.plain import PlainDisplay

if TYPE_CHECKING:
    from runner.events import Event
    from runner.pipeline.binding import Pipeline


class Display(Protocol):
    """A context manager that shows the events it takes."""

    def take(self, event: Event) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def display_of(pipeline: Pipeline, *, as_json: bool = False) -> Display:
    """The display for a run; ``as_json`` if events are printed on stdout too."""
    moving = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    if not moving or (as_json and sys.stdout.isatty()):
        return PlainDisplay()
    from runner.cli.display.live import LiveDisplay

    return LiveDisplay({stage.name: stage.budget.ram for stage in pipeline.stages})
