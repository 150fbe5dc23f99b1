"""Events as lines for people."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from runner import events as ev
from runner.model.shapes import CONVERTED
from runner.rundir.warnings import Warnings, count_of, line_of
from runner.units import format_size

if TYPE_CHECKING:
    from runner.events.json_values import Bytes

WARNINGS_SHOWN = 3  # of a stage and kind, when they happen; the last lines count them all


class Line(NamedTuple):
    """A line and its rich style, for terminals with colours."""

    text: str
    style: str = ""


class Lines:
    """Makes lines of the events of one run, which must come in their order."""

    def __init__(self) -> None:
        self._idle = True
        self._warnings = Warnings()

    def of(self, event: ev.Event) -> list[Line]:
        """The lines for an event; none for progress within a stage."""
        match event:
            case ev.StageStarted():
                self._idle = False
                return [Line(f"{event.stage}: {item_count(event.items, event.distinct)} ({event.placement})")]
            case ev.Resumed():
                return [
                    Line(f"{event.stage} {event.item} goes on from step {event.step} of {event.steps}", "dim")
                ]
            case ev.NodeJoined():
                return [Line(f"node {event.node} joins ({event.device})", "dim")]
            case ev.Warned():
                group = self._warnings.add(event)
                return [Line(line_of(event), "yellow")] if group.count <= WARNINGS_SHOWN else []
            case ev.StageFinished():
                return [Line(stage_line(event))]
            case ev.RunFinished():
                return self._end(event)
            case _:
                text = trouble_line(event)
                return [Line(text, "yellow")] if text else []

    def _end(self, event: ev.RunFinished) -> list[Line]:
        """The last lines of a run: warnings, the error, the result."""
        lines = [Line(f"warning: {group.line}", "yellow") for group in self._warnings if group.items]
        if event.error and event.exit_code != 130:
            lines.append(Line(f"error: {event.error}", "red"))
        return [*lines, Line(run_line(event, idle=self._idle))]


def item_count(items: int, distinct: int | None) -> str:
    """The number of items, and of distinct ones if some share a key: ``"3 items (2 distinct)"``."""
    shared = f" ({distinct} distinct)" if distinct is not None and distinct != items else ""
    return f"{count_of(items, 'item')}{shared}"


def stage_line(event: ev.StageFinished) -> str:
    """The result of a stage in a line."""
    counts = [f"{event.done} done"]
    counts += [
        f"{count} {what}" for what, count in (("cached", event.cached), ("failed", event.failed)) if count
    ]
    result = f"{event.stage}: {', '.join(counts)} in {event.seconds:.1f} s"
    return ", ".join([result, *_peaks(event.measured, event.predicted), *_streamed(event.streamed)])


def status_of(event: ev.ItemFinished) -> str:
    """The seconds that an item took, or its error."""
    return f"failed: {_first(event.error)}" if event.failed else f"{event.seconds:.2f} s"


def trouble_line(event: ev.Event) -> str:
    """What went wrong and how the run continues, in a line; "" for other events."""
    match event:
        case ev.OutOfMemory():
            then = f"; going on as {event.next}" if event.next else ""
            return f"out of memory as {event.placement}: {_first(event.error)}{then}"
        case ev.WorkerDied():
            return f"{_first(event.error)}; going on in a new worker"
        case ev.Retrying():
            return f"{event.stage} {event.item} failed: {_first(event.error)}; it will be tried again"
        case ev.StateDiscarded():
            return f"{event.stage} {event.item} starts again: its saved state cannot be used, {event.reason}"
        case ev.Waiting():
            return f"waiting: {event.reason}"
        case ev.NodeRefused():
            return f"node {event.node} is left out: {_first(event.reason)}"
        case ev.NodeLost():
            left = f"; {count_of(len(event.items), 'item')} that it had will be made elsewhere"
            return f"node {event.node} is lost: {_first(event.reason)}{left if event.items else ''}"
        case ev.MeasuringShapes():
            return measuring_line(event.stage, event.sizes)
        case _:
            return ""


def measuring_line(stage: str, sizes: int) -> str:
    """What a plan waits for: ``measuring shapes of stage 'denoise', 2 sizes...``."""
    return f"measuring shapes of stage '{stage}'{f', {sizes} sizes' if sizes > 1 else ''}..."


def preparing(event: ev.PrepareProgress) -> str:
    """``quantising transformer to int8``, ``converting transformer``."""
    if event.scheme == CONVERTED:
        return f"converting {event.component}"
    return f"quantising {event.component} to {event.scheme}"


def run_line(event: ev.RunFinished, *, idle: bool) -> str:
    """The result of the run in a line; ``idle`` if no stage was started."""
    where = f"; {_outputs(event.outputs)}" if event.outputs else ""
    if idle and event.exit_code == 0:
        return f"nothing to do{where}"
    how = {0: "done", 1: "done, but some items failed", 130: "interrupted"}
    state = how.get(event.exit_code, f"stopped with exit code {event.exit_code}")
    state += f" in {event.seconds:.1f} s"
    if event.exit_code == 130:
        at = f", {event.error}" if event.error else ""
        return f"{state}{at}{where}; the same command goes on from there"
    return f"{state}{where}"


def _outputs(paths: list[str]) -> str:
    """One output by its path, several by their folder."""
    if len(paths) == 1:
        return f"1 output: {os.path.relpath(paths[0])}"
    folder = os.path.relpath(os.path.dirname(paths[0]))  # noqa: PTH120 - a string of an event
    return f"{len(paths)} outputs in {folder}/"


def _peaks(measured: Bytes, predicted: Bytes) -> list[str]:
    """Measured peaks, each with its prediction."""
    lines = []
    for kind in ("vram", "ram"):
        if size := measured.get(kind):
            expected = predicted.get(kind)
            note = f" (predicted {format_size(expected)})" if expected else ""
            lines.append(f"{kind.upper()} peak {format_size(size)}{note}")
    return lines


def _streamed(streamed: dict[str, float] | None) -> list[str]:
    if not streamed:
        return []
    return [f"{format_size(streamed['read'])} of weights read, {streamed['waited']:.1f} s waited for them"]


def _first(text: str | None) -> str:
    return (text or "").partition("\n")[0]
