"""What a journal tells of items: what is under way or failed, and what the outputs are made from."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from runner.rundir import KEY_IN_NAME

if TYPE_CHECKING:
    from runner.journal import Event

TRACEBACKS = 100  # of failed items that are kept: one may have 20 KB, and ten thousand may fail
_EXACT = 2**53  # a browser's numbers are exact up to here; seeds go further


class Items:
    """Learns from events.

    A record of an item has ``id``, ``key``, ``params``, ``seconds`` by stage, the last ``stage`` and its
    ``time``; of one that failed also ``error``, ``attempts`` and ``traceback``.
    """

    def __init__(self) -> None:
        self.made: dict[str, str] = {}
        """Records of finished items as JSON, by what the names of their outputs begin with, as made."""
        self.open: dict[str, dict[str, Any]] = {}
        """Records of items of the latest run that are not finished, by id."""
        self.listed: list[str] = []
        """Names of the outputs of the latest run that came to its end, in the order of its items."""
        self.newer: dict[str, None] = {}
        """What names of outputs made since then begin with."""
        self._last_stages: set[str] = set()
        self._tracebacks = 0

    def take(self, event: Event) -> None:
        """Learn from the next event; one that is not as it should be is passed over."""
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            self._take(event)

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "run_started":
                self.open.clear()
                self._last_stages.clear()
                self._tracebacks = 0
            case "stage_started":
                if event.get("last"):
                    self._last_stages.add(event["stage"])
            case "item_finished":
                self._end(event)
            case "run_finished":
                if event["outputs"]:
                    self.listed = [PurePath(path).name for path in event["outputs"]]
                    self.newer.clear()

    def _end(self, event: Event) -> None:
        item, stage, key = str(event["item"]), str(event["stage"]), str(event["key"])
        seconds = round(float(event["seconds"]), 3)
        if not math.isfinite(seconds):
            raise ValueError(seconds)
        record = {
            "id": item,
            "key": key,
            "stage": stage,
            "time": datetime.fromisoformat(event["time"]).isoformat(),
            "params": exact(dict(event.get("params", {}))),
            "seconds": {stage: seconds},
        }
        record["seconds"] = self.open.pop(item, record)["seconds"] | record["seconds"]
        if event["status"] == "failed":
            self.open[item] = {**record, "status": "failed", **self._failure(event)}
        elif stage in self._last_stages:
            begin = f"{item}-{key[:KEY_IN_NAME]}"
            self.made.pop(begin, None)
            self.newer.pop(begin, None)
            self.made[begin] = json.dumps(record)
            self.newer[begin] = None
        else:
            self.open[item] = {**record, "status": "unfinished"}

    def _failure(self, event: Event) -> dict[str, Any]:
        failure = {"error": str(event["error"]), "attempts": int(event.get("attempts", 1))}
        self._tracebacks += 1
        if self._tracebacks <= TRACEBACKS:
            failure["traceback"] = str(event.get("traceback") or "")
        return failure


def exact(value: Any) -> Any:
    """A JSON value in which numbers that a browser has not are text."""
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [exact(one) for one in value]
    if isinstance(value, int) and abs(value) > _EXACT:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
