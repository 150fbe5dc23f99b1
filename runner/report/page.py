"""The page: a run directory's data as JSON, in an HTML template."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from runner import __version__
from runner import events as ev
from runner.files.storage import write_atomically
from runner.redact import redact
from runner.report.gallery import Gallery
from runner.report.items import Items, exact
from runner.report.runs import as_json
from runner.rundir.history import RunHistory
from runner.rundir.journal import now, read_journal
from runner.rundir.memory_series import Series
from runner.units import format_size

if TYPE_CHECKING:
    from runner.rundir.directory import RunDirectory

RUNS = 12  # latest runs, which are shown stage by stage
MANIFEST_LIMIT = 100_000  # characters that are shown
_HEAD = 1 << 17  # characters that hold the page's style, its markup, and the beginning of its data
_FOLDER = Path(__file__).with_name("assets")
_SCRIPTS = ("base.js", "gallery.js", "viewer.js", "problems.js", "stages.js", "page.js")


class Page:
    """The page of a run directory, from the journal's events and then a live run's."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._items = Items()
        self._gallery = Gallery(directory.outputs, self._items)
        self._earlier: deque[str] = deque(maxlen=RUNS - 1)  # JSON: a run that has ended does not change
        self._run: RunHistory | None = None
        self._activity = ""
        self._memory = Series()

    @property
    def is_settled(self) -> bool:
        """Whether the page exists, is up to date with the journal, and shows no run in progress."""
        try:
            newer = self._directory.report.stat().st_mtime_ns >= self._directory.journal.stat().st_mtime_ns
            with self._directory.report.open(encoding="utf-8") as file:
                return newer and '"live": false' in file.read(_HEAD)
        except (OSError, ValueError):
            return False

    def keep(self) -> None:
        """Mark the page as up to date without writing it: the journal's new events change nothing on it."""
        self._directory.report.touch()

    def read(self, until: int | None = None) -> None:
        """Take all events of the journal, or those in its first ``until`` bytes."""
        if self._directory.journal.exists():
            for event in read_journal(self._directory.journal, until):
                self.take(event)

    def take(self, event: ev.Event) -> None:
        """Update with the next event."""
        self._items.take(event)
        match event:
            case ev.Memory():
                self._take_memory(event)
                return
            case ev.RunStarted():
                if self._run is not None:
                    self._earlier.append(json.dumps(exact(as_json(self._run, going=False))))
                self._run = RunHistory()
            case ev.StageStarted():
                self._memory = Series()
            case ev.ItemFinished():
                event = replace(event, traceback=None)  # ten thousand may fail; `Items` keeps some
        self._activity = _activity(event)
        if self._run is not None:  # else the beginning of the journal is missing
            self._run.take(event)

    def _take_memory(self, event: ev.Memory) -> None:
        """Add a sample to the running stage; the journal has the whole series once it has ended."""
        stage = self._run.current if self._run else None
        if stage is not None and stage.started is not None and event.time is not None:
            self._memory.add((event.time - stage.started).total_seconds(), event.ram)
            stage.memory = self._memory.points

    def write(self, *, live: bool) -> None:
        """Write the page; with ``live`` the run goes on, and the page reloads itself.

        Raises:
            StorageError: it cannot be written.

        """
        name = self._directory.path.name
        title, data = html.escape(name), self._data(live=live)
        write_atomically(self._directory.report, _rendered(title=title, data=data).encode())

    def _data(self, *, live: bool) -> str:
        head = {
            "name": self._directory.path.name,
            "updated": now(),
            "version": __version__,
            "live": live,
            "activity": self._activity if live else "",
            "manifest": self._manifest(),
        }
        runs = list(self._earlier)
        if self._run is not None:
            runs.append(json.dumps(exact(as_json(self._run, going=live))))
        cards = ",\n".join(self._gallery.cards())
        text = f'{json.dumps(head)[:-1]}, "runs": [{",".join(runs)}], "cards": [{cards}]}}'
        return text.replace("<", "\\u003c")  # so that nothing in it ends the script element

    def _manifest(self) -> str:
        try:
            text = redact(self._directory.manifest.read_text(encoding="utf-8"))
        except OSError:
            return ""
        cut = f"{text[:MANIFEST_LIMIT]}\n... (the rest is in manifest.toml)"
        return text if len(text) <= MANIFEST_LIMIT else cut


def _activity(event: ev.Event) -> str:
    """What the run is doing, in words; "" for events that do not show it."""
    match event:
        case ev.Progress():
            return f"{event.stage}: {event.item}, {event.step} of {event.steps}"
        case ev.FetchProgress():
            return f"fetching {event.source}, {format_size(event.done)} of {format_size(event.total)}"
        case _:
            return ""


def _rendered(**values: str) -> str:
    """The template with the values filled in; values are not expanded again."""
    fixed = _fixed()
    parts = re.split(r"\{\{(\w+)\}\}", fixed["template"])
    names = {**fixed, **values}
    return "".join(names[part] if n % 2 else part for n, part in enumerate(parts))


@cache
def _fixed() -> dict[str, str]:
    """Template, style, script, and a content security policy: no other script or style, no network."""
    read = {
        name: (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", *_SCRIPTS)
    }
    style, script = read["style.css"], "\n".join(read[name] for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src 'self' file: data:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return {"template": read["page.html"], "style": style, "script": script, "policy": policy}


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
