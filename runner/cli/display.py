"""How a run looks while it goes: a live line a stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from runner.cli.common import say
from runner.manifest.units import format_size
from runner.protocol import NOTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.journal import Event
    from runner.manifest.schema import Budget
    from runner.plan.pipeline import Pipeline


ID_WIDTH = 32
WARNINGS_SHOWN = 3  # of a stage and kind, as they come; the last lines count them all
ITEMS_NAMED = 5
WIDE = 110  # columns of a terminal that has room for bars and rates


class Display(Protocol):
    """Takes events, as long as it is entered."""

    def take(self, event: Event) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PlainDisplay:
    """A line for each thing that is worth one, for logs and pipes."""

    def __init__(self) -> None:
        self._total = 0
        self._seen = 0
        self._fetched = 0
        self._idle = True
        self._warnings = Warnings()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left on the screen that would have to go."""

    def take(self, event: Event) -> None:
        match event["event"]:
            case "stage_started":
                self._idle = False
                self._total, self._seen = event["items"], 0
                say(f"{event['stage']}: {_count(event['items'], 'item')} ({event['placement']})")
            case "out_of_memory" | "worker_died" | "retrying" | "state_discarded" | "waiting":
                say(trouble_line(event))
            case "warning":
                for line in self._warnings.take(event):
                    say(line)
            case "item_finished":
                self._seen += 1
                place = f"{event['stage']} {self._seen}/{max(self._total, self._seen)}"
                say(f"{place} {event['item']} {_status(event)}")
            case "stage_finished":
                say(stage_line(event))
            case "progress" if event["stage"] == "fetch":
                self._tell_fetch(event)
            case "run_finished":
                for line in self._warnings.lines():
                    say(line)
                say(run_line(event, idle=self._idle))

    def _tell_fetch(self, event: Event) -> None:
        """A line for each tenth of a download."""
        tenth = event["step"] * 10 // event["steps"] if event["steps"] else 10
        if tenth > self._fetched:
            self._fetched = tenth
            total = format_size(event["steps"])
            say(f"fetching {event['item']}: {tenth * 10} % of {total}")


class LiveDisplay:
    """Stage, items, step, rate, time left, and memory against the budget, in place."""

    def __init__(self, budgets: Mapping[str, Budget]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self._budgets = budgets
        self._console = Console(stderr=True)
        wide = self._console.width >= WIDE
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=8)),
            *([BarColumn(bar_width=24)] if wide else []),
            TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True, justify="right")),
            *([TextColumn("{task.fields[rate]:>12}", table_column=Column(no_wrap=True))] if wide else []),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[memory]}", table_column=Column(no_wrap=True)),
            # what is left of the line
            TextColumn(
                "[dim]{task.fields[item]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=self._console,
            expand=True,
        )
        self._tasks: dict[str, Any] = {}
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._warnings = Warnings()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()

    def take(self, event: Event) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            self._take(event)

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "stage_started":
                self._start(event["stage"], event["items"])
            case "progress":
                self._step(event)
            case "item_finished":
                self._finish_item(event)
            case "out_of_memory" | "worker_died" | "retrying" | "state_discarded" | "waiting":
                self._warn(trouble_line(event))
            case "warning":
                for line in self._warnings.take(event):
                    self._warn(line)
            case "memory":
                self._update(event["stage"], memory=self._memory(event))
            case "stage_finished":
                self._update(event["stage"], item="", memory=_measured(event))
            case "run_finished":
                self._progress.stop()
                for line in self._warnings.lines():
                    say(line)
                say(run_line(event, idle=not self._done))

    def _warn(self, line: str) -> None:
        self._console.print(line, style="yellow", highlight=False, markup=False)

    def _start(self, stage: str, items: int) -> None:
        count = f"0/{items}"
        self._tasks[stage] = self._progress.add_task(
            stage, total=items, count=count, rate="", memory="", item="loading"
        )
        self._done[stage], self._totals[stage] = 0, items

    def _step(self, event: Event) -> None:
        stage, step, steps = event["stage"], event["step"], event["steps"]
        if stage == "fetch":
            if stage not in self._tasks:
                self._start(stage, steps)
            count = f"{format_size(step)} of {format_size(steps)}"
            self._update(stage, completed=step, count=count, item=event["item"])
            return
        self._started.setdefault(stage, time.monotonic())
        completed = self._done[stage] + step / max(steps, 1)
        self._update(
            stage,
            completed=completed,
            item=f"{_short(event['item'])} step {step}/{steps}",
            rate=self._rate(stage, completed),
        )

    def _finish_item(self, event: Event) -> None:
        stage = event["stage"]
        self._started.setdefault(stage, time.monotonic() - event["seconds"])  # loading is no item's time
        self._done[stage] += 1
        # items that share a key are told of one by one: they can be more than there was work
        done, total = self._done[stage], max(self._totals[stage], self._done[stage])
        count, rate = f"{done}/{total}", self._rate(stage, done)
        self._update(stage, completed=done, total=total, count=count, rate=rate, item=_short(event["item"]))
        if event["status"] == "failed":
            self._console.print(f"{stage} {event['item']} {_status(event)}", style="red")

    def _rate(self, stage: str, completed: float) -> str:
        seconds = time.monotonic() - self._started[stage]
        return f"{seconds / completed:.2f} s/item" if completed else ""

    def _memory(self, event: Event) -> str:
        budget = self._budgets[event["stage"]].ram
        limit = f" of {format_size(budget)}" if budget else ""
        return f"RAM {format_size(event['ram'])}{limit}"

    def _update(self, stage: str, **fields: Any) -> None:
        if stage in self._tasks:
            self._progress.update(self._tasks[stage], **fields)


class Warnings:
    """Shows the first warnings of each kind as they come, and counts all of them for the end of the run."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], list[str]] = {}
        """Items that were warned about, by stage and kind; "" for a warning about no item."""

    def take(self, event: Event) -> list[str]:
        """The lines to show for a warning now: none once enough of its kind were shown."""
        about = " ".join(event[name] for name in ("stage", "item") if event.get(name))
        seen = self._items.setdefault((event.get("stage") or "", event["kind"]), [])
        seen.append(event.get("item") or "")
        if len(seen) > WARNINGS_SHOWN:
            return []
        word = "note" if event["kind"] == NOTE else "warning"
        return [f"{word}: {about}: {event['message']}" if about else f"{word}: {event['message']}"]

    def lines(self) -> list[str]:
        """A line for each kind of warning that the run had about items: how many, and which."""
        lines = []
        for (stage, kind), items in self._items.items():
            named = list(dict.fromkeys(filter(None, items)))
            if named:
                more = f" and {len(named) - ITEMS_NAMED} more" if len(named) > ITEMS_NAMED else ""
                which = f"{', '.join(named[:ITEMS_NAMED])}{more}"
                lines.append(
                    f"warning: {stage}: {kind.replace('_', ' ')} for {_count(len(named), 'item')}: {which}"
                )
        return lines


def display_of(pipeline: Pipeline) -> Display:
    """How a pipeline's run is shown: live where stderr is a terminal, else a line an item."""
    if not sys.stderr.isatty():
        return PlainDisplay()
    return LiveDisplay({stage.name: stage.budget for stage in pipeline.stages})


def stage_line(event: Event) -> str:
    """What became of a stage, in a line."""
    counts = [f"{event['done']} done"]
    counts += [f"{event[name]} {name}" for name in ("cached", "failed") if event[name]]
    return f"{event['stage']}: {', '.join(counts)} in {event['seconds']:.1f} s, {_measured(event)}"


def trouble_line(event: Event) -> str:
    """What went wrong, and how the run goes on, in a line."""
    first = str(event.get("error", "")).partition("\n")[0]
    match event["event"]:
        case "out_of_memory":
            next_ = f"; going on as {event['next']}" if event["next"] else ""
            return f"out of memory as {event['placement']}: {first}{next_}"
        case "worker_died":
            return f"{first}; going on in a new worker"
        case "retrying":
            return f"{event['stage']} {event['item']} failed: {first}; it will be tried again"
        case "state_discarded":
            return (
                f"{event['stage']} {event['item']} begins anew: what it saved is of no use, {event['reason']}"
            )
        case _:
            return f"waiting: {event['reason']}"


def run_line(event: Event, *, idle: bool) -> str:
    """What became of the run, in a line; ``idle`` if no stage was started."""
    outputs = event["outputs"]
    where = ""
    if outputs:
        folder = os.path.relpath(os.path.dirname(outputs[0]))  # noqa: PTH120 - a string of an event
        where = f"; {_count(len(outputs), 'output')} in {folder}/"
    if idle and event["exit_code"] == 0:
        return f"nothing to do{where}"
    how = {0: "done", 1: "done, but some items failed", 130: "interrupted"}
    state = how.get(event["exit_code"], f"stopped with exit code {event['exit_code']}")
    again = "; the same command goes on from there" if event["exit_code"] == 130 else ""
    return f"{state} in {event['seconds']:.1f} s{where}{again}"


def _measured(event: Event) -> str:
    """Peaks, each beside what was predicted."""
    told = []
    for kind in ("vram", "ram"):
        measured, predicted = event["measured"][kind], event["predicted"][kind]
        if measured:
            beside = f" (predicted {format_size(predicted)})" if predicted else ""
            told.append(f"{kind.upper()} peak {format_size(measured)}{beside}")
    if event["streamed"]:
        read, waited = event["streamed"]["read"], event["streamed"]["waited"]
        told.append(f"{format_size(read)} of weights read, {waited:.1f} s waited for them")
    return ", ".join(told)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _short(item: str) -> str:
    """An id that leaves room for the rest of its line."""
    return item if len(item) <= ID_WIDTH else f"{item[: ID_WIDTH - 1]}…"


def _status(event: Event) -> str:
    if event["status"] == "failed":
        first = str(event["error"]).partition("\n")[0]
        return f"failed: {first}"
    return f"{event['seconds']:.2f} s"
