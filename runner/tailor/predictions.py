"""Comments in a manifest with each stage's placement and predicted peaks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner.tailor.rewrite import Layout, put_line, same_data
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.plan.stage_plan import StagePlan

_PREDICTED = re.compile(r"^([ \t]*)# predicted:[^\r\n]*", re.MULTILINE)


def in_words(plan: StagePlan) -> str:
    """The placement and the peaks of a plan: ``device-map, VRAM 7.81 GiB, RAM 12.96 GiB``."""
    peaks = [f"{peak.kind} {format_size(peak.size)}" for peak in plan.chosen.peaks(plan.limits)]
    without = [] if plan.need.has_formula else ["without activations, which are not known"]
    return ", ".join([plan.chosen.placement, *peaks, *without])


def note_predictions(text: str, plans: Sequence[StagePlan], *, add: bool) -> str:
    """The text with each stage's prediction updated; ``add`` puts missing ones under the stage's header."""
    for plan in plans:
        layout = Layout(text)
        path = ("stage", plan.stage.index)
        header = layout.header(path)
        if header is None:  # stages as inline tables have no room for comments
            continue
        others = (s.start for s in layout.statements if s.is_header and s.path[:2] != path)
        end = next((start for start in others if start > header.start), len(text))
        comment = f"# predicted: {in_words(plan)}"
        text = _refreshed(text, header.end, end, comment) or (
            put_line(text, header.end, comment) if add else text
        )
    return text


def _refreshed(text: str, start: int, end: int, comment: str) -> str:
    """The text with an old prediction between two offsets replaced; empty if there is none."""
    for found in _PREDICTED.finditer(text, start, end):
        edited = f"{text[: found.start()]}{found[1]}{comment}{text[found.end() :]}"
        if same_data(text, edited):  # else it is a line of a string
            return edited
    return ""
