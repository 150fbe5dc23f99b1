"""The cards of the gallery: one for each file in ``outputs/`` and for each unfinished item."""

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
    """Cards as JSON, in the order of the page."""

    def __init__(self, outputs: Path, items: Items) -> None:
        self._outputs = outputs
        self._items = items
        self._excerpts: dict[str, str] = {}

    def cards(self) -> Iterator[str]:
        """Expected outputs, failed items, unfinished items, then outputs of earlier manifests."""
        items = self._items
        files = self._files()
        current = dict.fromkeys(name for prefix in items.expected for name in files.get(prefix, []))
        there = sorted(name for names in files.values() for name in names)
        if not items.expected.known:
            current |= dict.fromkeys(there)
        yield from self._made(current, "done")
        for status in ("failed", "unfinished"):
            yield from (json.dumps(one) for one in items.open.values() if one["status"] == status)
        known = [name for prefix in reversed(items.made) for name in files.get(prefix, [])]
        earlier = dict.fromkeys([*known, *there])
        yield from self._made((name for name in earlier if name not in current), "earlier")

    def _files(self) -> dict[str, list[str]]:
        """Names of output files, by their prefix: item and key."""
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
            # joined as text: the records of ten thousand items are not parsed again
            yield f"{json.dumps(head)[:-1]}, {self._record(name)[1:]}"

    def _record(self, name: str) -> str:
        _, rest = key_and_rest(name)
        prefix = name[: len(name) - len(rest)]
        if prefix not in self._items.made:  # not in the journal: it was linked, or the journal was removed
            self._items.made[prefix] = json.dumps(self._from_file(name, prefix))
        return self._items.made[prefix]

    def _from_file(self, name: str, prefix: str) -> dict[str, Any]:
        """The record in the file itself."""
        key = prefix[-KEY_IN_NAME:]
        params: dict[str, Any] = {}
        with contextlib.suppress(OSError, KeyError, TypeError, AttributeError):  # anyone may put a file there
            record = provenance.read_provenance(self._outputs / name) or {}
            key = str(record["key"])
            for stage in record["lineage"].values():
                params |= stage["params"]
        return {"id": prefix[: -KEY_IN_NAME - 1], "key": key, "params": exact(params), "seconds": {}}

    def _excerpt(self, name: str) -> str:
        if name not in self._excerpts:
            with (self._outputs / name).open(encoding="utf-8", errors="replace") as file:
                self._excerpts[name] = file.read(EXCERPT)
        return self._excerpts[name]
