"""Everything about one plugin, found by requests: how it loads, then each of its stages at work."""

from __future__ import annotations

import difflib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from runner.errors import PluginError
from runner.plugin_check.checks import BROKEN, LOADS, NOT_RUN, PARAMS, RUNS, Verdict
from runner.plugin_check.requests import CheckRequest, send
from runner.plugins import GROUP
from runner.supervisor.launch import CAN_FORK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from runner.manifest.load import Manifest


def installed(names: Sequence[str] = ()) -> list[EntryPoint]:
    """The entry points of all plugins, or of those of some names; nothing is imported.

    Raises:
        PluginError: there is no plugin of one of the names.

    """
    entries = list(metadata.entry_points(group=GROUP))
    known = [entry.name for entry in entries]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "`pip install -e .` in its folder installs it"
            raise PluginError(f"no plugin '{name}' is installed; {hint}")
    return [entry for entry in entries if not names or entry.name in names]


class Examination:
    """Looks at plugins, each request with so many seconds; ``folder`` is for what is made meanwhile."""

    def __init__(
        self, folder: Path, seconds: float, manifest: Manifest | None, began: Callable[[str], None]
    ) -> None:
        """``began`` is told of each request before it starts."""
        self._folder = str(folder)
        self._seconds = seconds
        self._began = began
        self._manifest = manifest.path if manifest else None
        self._tables = manifest.table.stage if manifest else []
        self._runs = False

    def run_manifest(self) -> Iterator[Verdict]:
        """Run the manifest's first items, so that the inputs of its stages are there."""
        if self._manifest is not None:
            verdicts = self._send(f"running {self._manifest}", manifest=str(self._manifest))
            self._runs = all(verdict.status != BROKEN for verdict in verdicts)
            yield from verdicts

    def plugin(self, entry: EntryPoint) -> Iterator[Verdict]:
        """Look at one plugin and at its stages."""
        whose = _whose(entry)
        verdicts = self._send(f"loading {entry.name}", **whose)
        yield from verdicts
        stages = [verdict.subject for verdict in verdicts if verdict.check == PARAMS]  # one for each
        used = [table for table in self._tables if table.uses in stages]
        elsewhere = {table.uses for table in used}
        yield from self._stages([stage for stage in stages if stage not in elsewhere], **whose)
        if self._runs:
            yield from self._stages([table.name for table in used], manifest=str(self._manifest), **whose)
        else:
            told = f"{self._manifest} does not run"
            yield from (Verdict(table.uses, RUNS, NOT_RUN, told, "mend that first") for table in used)

    def _stages(self, stages: list[str], **request: Any) -> Iterator[Verdict]:
        together = [stages] if CAN_FORK and stages else [[stage] for stage in stages]
        for some in together:
            yield from self._send(f"trying {', '.join(some)}", stages=some, **request)

    def _send(self, what: str, **request: Any) -> list[Verdict]:
        self._began(what)
        return send(CheckRequest(self._folder, self._seconds, **request))


def examine_stage(stage: str, case: dict[str, Any], folder: Path, seconds: float) -> list[Verdict]:
    """Look at one stage, and at what it needs of its plugin, on a given case (see :class:`CheckRequest`)."""
    try:
        entry, *_ = installed([stage.partition(".")[0]])
    except PluginError as error:
        return [Verdict(stage, LOADS, BROKEN, str(error))]
    whose = _whose(entry)
    verdicts = send(CheckRequest(str(folder), seconds, **whose))
    if any(verdict.check == LOADS and verdict.status == BROKEN for verdict in verdicts):
        return verdicts
    of_stage = [verdict for verdict in verdicts if verdict.subject in (entry.name, stage)]
    return of_stage + send(CheckRequest(str(folder), seconds, stages=[stage], case=case, **whose))


def _whose(entry: EntryPoint) -> dict[str, Any]:
    return {"plugin": entry.name, "distribution": entry.dist.name if entry.dist else ""}
