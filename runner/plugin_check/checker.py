"""Checks plugins one by one: how each loads, then how its stages run."""

from __future__ import annotations

import difflib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from runner.errors import PluginError
from runner.plugin_check.checks import BROKEN, LOADS, NOT_RUN, PARAMS, RUNS, Verdict
from runner.plugin_check.requests import CheckRequest, run_check
from runner.plugins import GROUP
from runner.supervisor.processes.launch import CAN_FORK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from runner.manifest.load import Manifest


def installed(names: Sequence[str] = ()) -> list[EntryPoint]:
    """The entry points of all plugins, or of the named ones; nothing is imported.

    Raises:
        PluginError: a name is not that of an installed plugin.

    """
    entries = list(metadata.entry_points(group=GROUP))
    known = [entry.name for entry in entries]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "`pip install -e .` in its folder installs it"
            raise PluginError(f"no plugin '{name}' is installed; {hint}")
    return [entry for entry in entries if not names or entry.name in names]


class Checker:
    """Runs the checks of plugins in processes of their own, each with a time limit."""

    def __init__(
        self, folder: Path, seconds: float, manifest: Manifest | None, on_start: Callable[[str], None]
    ) -> None:
        """``folder`` is for temporary runs; ``on_start`` is called with a description of each process."""
        self._folder = str(folder)
        self._seconds = seconds
        self._on_start = on_start
        self._manifest = manifest.path if manifest else None
        self._tables = manifest.table.stage if manifest else []
        self._manifest_runs = False

    def check_manifest(self) -> Iterator[Verdict]:
        """Run the manifest's first items, which makes the inputs of its stages."""
        if self._manifest is not None:
            verdicts = self._run(f"running {self._manifest}", manifest=str(self._manifest))
            self._manifest_runs = all(verdict.status != BROKEN for verdict in verdicts)
            yield from verdicts

    def check_plugin(self, entry: EntryPoint) -> Iterator[Verdict]:
        """Check how a plugin loads, then each of its stages, on the manifest if that uses the stage."""
        owner = _owner(entry)
        verdicts = self._run(f"loading {entry.name}", **owner)
        yield from verdicts
        stages = [verdict.subject for verdict in verdicts if verdict.check == PARAMS]  # one for each
        tables = [table for table in self._tables if table.uses in stages]
        in_manifest = {table.uses for table in tables}
        yield from self._check_stages([stage for stage in stages if stage not in in_manifest], **owner)
        if self._manifest_runs:
            yield from self._check_stages(
                [table.name for table in tables], manifest=str(self._manifest), **owner
            )
        else:
            message = f"{self._manifest} does not run"
            yield from (Verdict(table.uses, RUNS, NOT_RUN, message, "fix that first") for table in tables)

    def _check_stages(self, stages: list[str], **request: Any) -> Iterator[Verdict]:
        groups = [stages] if CAN_FORK and stages else [[stage] for stage in stages]
        for group in groups:
            yield from self._run(f"checking {', '.join(group)}", stages=group, **request)

    def _run(self, description: str, **request: Any) -> list[Verdict]:
        self._on_start(description)
        return run_check(CheckRequest(self._folder, self._seconds, **request))


def check_stage(stage: str, case: dict[str, Any], folder: Path, seconds: float) -> list[Verdict]:
    """Check one stage, and how its plugin loads, on a given case (see :class:`CheckRequest`)."""
    try:
        entry, *_ = installed([stage.partition(".")[0]])
    except PluginError as error:
        return [Verdict(stage, LOADS, BROKEN, str(error))]
    owner = _owner(entry)
    verdicts = run_check(CheckRequest(str(folder), seconds, **owner))
    if any(verdict.check == LOADS and verdict.status == BROKEN for verdict in verdicts):
        return verdicts
    of_stage = [verdict for verdict in verdicts if verdict.subject in (entry.name, stage)]
    return of_stage + run_check(CheckRequest(str(folder), seconds, stages=[stage], case=case, **owner))


def _owner(entry: EntryPoint) -> dict[str, Any]:
    return {"plugin": entry.name, "distribution": entry.dist.name if entry.dist else ""}
