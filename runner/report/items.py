"""Items as the journal records them: finished, unfinished and failed."""

from __future__ import annotations

import json
import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from runner import events as ev
from runner.rundir.directory import KEY_IN_NAME, key_and_rest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TRACEBACKS = 100  # kept, of failed items: one may have 20 KB, and ten thousand may fail
_EXACT = 2**53  # JavaScript's numbers are exact up to here; seeds may be larger


class Items:
    """Records of items, updated by events.

    A record of an item has ``id``, ``key``, ``params``, ``seconds`` by stage, the last ``stage`` and its
    ``time``; of one that failed also ``error``, ``attempts`` and ``traceback``.
    """

    def __init__(self) -> None:
        self.made: dict[str, str] = {}
        """Records of finished items as JSON, by the prefix of their outputs' names, in the order made."""
        self.open: dict[str, dict[str, Any]] = {}
        """Records of items of the latest run that are not finished, by id."""
        self.expected = ExpectedItems()
        self._last_stages: set[str] = set()
        self._tracebacks = 0

    def take(self, event: ev.Event) -> None:
        """Update with the next event."""
        self.expected.take(event)
        match event:
            case ev.RunStarted():
                self.open.clear()
                self._last_stages.clear()
                self._tracebacks = 0
            case ev.StageStarted(last=True):
                self._last_stages.add(event.stage)
            case ev.ItemFinished():
                self._end(event)

    def _end(self, event: ev.ItemFinished) -> None:
        seconds = round(event.seconds, 3)
        record = {
            "id": event.item,
            "key": event.key,
            "stage": event.stage,
            "time": event.time.isoformat() if event.time else None,
            "params": exact(event.params),
            "seconds": {event.stage: seconds},
        }
        record["seconds"] = self.open.pop(event.item, record)["seconds"] | record["seconds"]
        if event.failed:
            self.open[event.item] = {**record, "status": "failed", **self._failure(event)}
        elif event.stage in self._last_stages:
            prefix = f"{event.item}-{event.key[:KEY_IN_NAME]}"
            self.made.pop(prefix, None)
            self.made[prefix] = json.dumps(record)
            self.expected.add(prefix)
        else:
            self.open[event.item] = {**record, "status": "unfinished"}

    def _failure(self, event: ev.ItemFinished) -> dict[str, Any]:
        failure = {"error": event.error or "", "attempts": event.attempts}
        self._tracebacks += 1
        if self._tracebacks <= TRACEBACKS:
            failure["traceback"] = event.traceback or ""
        return failure


class ExpectedItems:
    """Prefixes of the outputs of the current manifest, and of the latest command line with overrides.

    A manifest's outputs are those listed by its last finished run, until a run of the changed manifest ends.
    Outputs of a run with ``--prompt`` or ``--set`` count until the next run ends.
    """

    def __init__(self) -> None:
        self.known = False
        """Whether a run has ended, and so listed its outputs."""
        self._run = ev.RunStarted(run="", manifest="", stages=[], items=0)
        self._content = ""
        """The digest of the manifest that ``_own`` belongs to."""
        self._own: dict[str, None] = {}
        """Outputs of the manifest without overrides."""
        self._other: dict[str, None] = {}
        """Outputs of the latest run, if it had overrides."""
        self._newer: dict[str, ev.RunStarted] = {}
        """Outputs that were made since a run ended, and by which run."""

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._newer, *self._other, *self._own]))

    def take(self, event: ev.Event) -> None:
        """Update with the next event."""
        match event:
            case ev.RunStarted():
                self._run = event
            case ev.RunFinished(outputs=[_, *_]):
                self._end(dict.fromkeys(_prefixes(event.outputs)))

    def add(self, prefix: str) -> None:
        """An output was made."""
        self._newer.pop(prefix, None)
        self._newer[prefix] = self._run

    def _end(self, listed: dict[str, None]) -> None:
        run = self._run
        if not run.overridden:
            self._content, self._own, self._other = run.content, listed, {}
        else:
            made = [
                prefix
                for prefix, by in self._newer.items()
                if not by.overridden and by.content == run.content
            ]
            kept = self._own if self._content == run.content else {}
            self._content, self._own, self._other = run.content, dict.fromkeys([*made, *kept]), listed
        self._newer.clear()
        self.known = True


def _prefixes(paths: Iterable[str]) -> Iterator[str]:
    """The prefixes of outputs' names: item and key."""
    for path in paths:
        name = PurePath(path).name
        yield name.removesuffix(key_and_rest(name)[1])


def exact(value: Any) -> Any:
    """A JSON value in which numbers that JavaScript cannot represent are text."""
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [exact(one) for one in value]
    if isinstance(value, int) and abs(value) > _EXACT:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
