"""The cards of the gallery: the files in ``outputs/``, which are the truth, with what is known of each."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from runner.files import provenance
from runner.files.storage import TEMPORARY
from runner.report.items import exact
from runner.rundir.directory import KEY_IN_NAME, key_and_rest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from runner.report.items import Items

EXCERPT = 400  # characters of a text that a card shows


class Gallery:
    """Cards as JSON, in the order that the page has them."""

    def __init__(self, outputs: Path, items: Items) -> None:
        self._outputs = outputs
        self._items = items
        self._excerpts: dict[str, str] = {}

    def cards(self) -> Iterator[str]:
        """Outputs that are asked for, what failed, what is unfinished, outputs of earlier manifests."""
        items = self._items
        files = self._files()
        current = dict.fromkeys(name for begin in items.wanted for name in files.get(begin, []))
        there = sorted(name for names in files.values() for name in names)
        if not items.wanted.known:
            current |= dict.fromkeys(there)
        yield from self._made(current, "done")
        for status in ("failed", "unfinished"):
            yield from (json.dumps(one) for one in items.open.values() if one["status"] == status)
        known = [name for begin in reversed(items.made) for name in files.get(begin, [])]
        earlier = dict.fromkeys([*known, *there])
        yield from self._made((name for name in earlier if name not in current), "earlier")

    def _files(self) -> dict[str, list[str]]:
        """Names of outputs, by item and key, which they begin with."""
        found: dict[str, list[str]] = {}
        try:
            names = sorted(entry.name for entry in os.scandir(self._outputs) if entry.is_file())
        except OSError:
            return found
        for name in names:
            digits, rest = key_and_rest(name)
            sidecar = name.endswith(provenance.SIDECAR_SUFFIX)
            if digits and not sidecar and not (name.startswith(".") and name.endswith(TEMPORARY)):
                found.setdefault(name[: len(name) - len(rest)], []).append(name)
        return found

    def _made(self, names: Iterable[str], status: str) -> Iterator[str]:
        for name in names:
            head: dict[str, Any] = {"file": name, "status": status}
            if name.endswith(".txt"):
                head["text"] = self._excerpt(name)
            # two objects in one: what is known of ten thousand items is not taken apart again
            yield f"{json.dumps(head)[:-1]}, {self._record(name)[1:]}"

    def _record(self, name: str) -> str:
        _, rest = key_and_rest(name)
        begin = name[: len(name) - len(rest)]
        if (
            begin not in self._items.made
        ):  # the journal does not know it: it was linked, or the journal is gone
            self._items.made[begin] = json.dumps(self._from_file(name, begin))
        return self._items.made[begin]

    def _from_file(self, name: str, begin: str) -> dict[str, Any]:
        """What the file itself tells."""
        key = begin[-KEY_IN_NAME:]
        params: dict[str, Any] = {}
        with contextlib.suppress(
            OSError, KeyError, TypeError, AttributeError
        ):  # anybody may put a file there
            told = provenance.read_provenance(self._outputs / name) or {}
            key = str(told["key"])
            for stage in told["lineage"].values():
                params |= stage["params"]
        return {"id": begin[: -KEY_IN_NAME - 1], "key": key, "params": exact(params), "seconds": {}}

    def _excerpt(self, name: str) -> str:
        if name not in self._excerpts:
            with (self._outputs / name).open(encoding="utf-8", errors="replace") as file:
                self._excerpts[name] = file.read(EXCERPT)
        return self._excerpts[name]
