"""Tells on stderr that a command waits for activations to be measured."""

from __future__ import annotations

from runner.cli.display.lines import measuring_line
from runner.cli.output import say
from runner.supervisor.event_publisher import NOT_MEASURED


class MeasuringMessages:
    """Prints a line on stderr when a stage's activations are measured, or cannot be."""

    def measuring(self, stage: str, sizes: int) -> None:
        say(measuring_line(stage, sizes))

    def not_measured(self, stage: str, reason: str) -> None:
        say(f"warning: stage '{stage}': {NOT_MEASURED.format(reason)}")
