"""The history of runs, from their journal or, with :meth:`RunHistory.take` as a listener, while they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import events as ev
from runner.errors import ExitCode, StorageError
from runner.rundir.directory import key_and_rest
from runner.rundir.journal import read_journal
from runner.rundir.node_history import Nodes
from runner.rundir.stage_history import Failure, StageHistory
from runner.rundir.warnings import Warnings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

COMPLETED = (ExitCode.DONE, ExitCode.ITEMS_FAILED)
"""Exit codes of runs that were not stopped early."""


@dataclass(frozen=True)
class Counts:
    """Numbers of items: made by a run, failed, and done before (None while it runs, or if it was killed)."""

    made: int
    failed: int
    cached: int | None


@dataclass
class RunHistory:
    """A run. ``exit_code`` is None while it runs, and if it was killed."""

    name: str = ""
    manifest: str = ""
    stage_names: list[str] = field(default_factory=list)
    items: int = 0
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    loras: dict[str, float] = field(default_factory=dict)
    """The adapters, with the manifest's weights."""
    started: datetime | None = None
    latest: datetime | None = None
    """The time of its latest event."""
    stages: dict[str, StageHistory] = field(default_factory=dict)
    exit_code: int | None = None
    seconds: float | None = None
    outputs: list[str] = field(default_factory=list)
    error: str = ""
    warnings: Warnings = field(default_factory=Warnings)
    nodes: Nodes = field(default_factory=Nodes)

    def take(self, event: ev.Event) -> None:
        """Update the history with the next event."""
        self.latest = event.time or self.latest
        self.nodes.take(event)
        match event:
            case ev.RunStarted():
                self.name, self.manifest, self.started = event.run, event.manifest, event.time
                self.stage_names, self.items = event.stages, event.items
                self.machine, self.versions, self.loras = event.machine, event.versions, event.loras
            case ev.StageStarted():
                self.stages[event.stage] = StageHistory(event)
            case ev.ItemFinished() | ev.OutOfMemory() | ev.StageFinished():
                if event.stage in self.stages:
                    self.stages[event.stage].take(event)
            case ev.Warned():
                self.warnings.add(event)
            case ev.RunFinished():
                self.outputs, self.error = event.outputs, event.error or ""
                self.exit_code, self.seconds = event.exit_code, event.seconds

    @property
    def failures(self) -> list[Failure]:
        return [failure for stage in self.stages.values() for failure in stage.failures.values()]

    @property
    def counts(self) -> Counts:
        failed = {failure.item for failure in self.failures}
        made = len(set().union(*(stage.made for stage in self._last_stages)) - failed)
        done = self.done
        return Counts(made, len(failed), None if done is None else max(0, done - made))

    @property
    def _last_stages(self) -> list[StageHistory]:
        """The terminal stages."""
        last = self.stage_names[-1:]
        return [stage for stage in self.stages.values() if stage.is_terminal or stage.name in last]

    @property
    def done(self) -> int | None:
        """The number of items done by this run or an earlier one; None while it runs, or if it was killed."""
        if self.exit_code is None:
            return None
        failed = {failure.item for failure in self.failures}
        if self.outputs:
            return len({_item_of(Path(path).name) for path in self.outputs} - failed)
        # a run may leave only tensors, which are not listed as outputs
        whole = all(stage.done + stage.failed == stage.items for stage in self.stages.values())
        return self.items - len(failed) if self.exit_code in COMPLETED and whole else 0

    @property
    def current(self) -> StageHistory | None:
        """The stage that started last."""
        return next(reversed(self.stages.values()), None)

    @property
    def reason(self) -> str:
        """Why it failed, in one line: the error that stopped it, else its first failed item."""
        if self.error:
            return self.error.partition("\n")[0]
        first = next(iter(self.failures), None)
        return f"{first.stage} {first.item}: {first.reason}" if first else ""


def read_runs(journal: Path) -> Iterator[RunHistory]:
    """The runs in a journal, oldest first; none if there is no journal.

    Raises:
        StorageError: it cannot be read.

    """
    try:
        yield from _runs_of(read_journal(journal))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot read {journal}: {error.strerror}") from error


def failed_items(journal: Path) -> set[str]:
    """Ids of the items whose last attempt failed."""
    failed: set[tuple[str, str]] = set()
    for run in read_runs(journal):
        for stage in run.stages.values():
            failed -= {(stage.name, item) for item in stage.made}
            failed |= {(stage.name, item) for item in stage.failures}
    return {item for _, item in failed}


def _runs_of(events: Iterable[ev.Event]) -> Iterator[RunHistory]:
    run: RunHistory | None = None
    for event in events:
        if isinstance(event, ev.RunStarted):
            if run is not None:
                yield run
            run = RunHistory()
        if run is not None:  # else the beginning of the journal is missing
            run.take(event)
    if run is not None:
        yield run


def _item_of(output: str) -> str:
    key, rest = key_and_rest(output)
    return output.removesuffix(f"-{key}{rest}")
