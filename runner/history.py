"""What became of runs, as their journal tells: each run, stage by stage.

A run that goes on tells the same, event by event: :meth:`RunHistory.take` is a listener. What is wrong in a
journal (a torn line, a field of another type) is passed over.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ExitCode, StorageError
from runner.journal import read_journal
from runner.protocol import NOTE
from runner.rundir import key_and_rest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.journal import Event

Bytes = dict[str, int | None]
"""Bytes of ``"vram"`` and ``"ram"``."""
GOT_THROUGH = (ExitCode.DONE, ExitCode.ITEMS_FAILED)
"""Exit codes of runs that nothing stopped."""
WARNINGS_KEPT = 200
_MOST = 1 << 62
"""No honest number in a journal is larger."""


@dataclass(frozen=True)
class Failure:
    """An item that could not be made, and why."""

    stage: str
    item: str
    error: str
    traceback: str = ""
    attempts: int = 1

    @property
    def reason(self) -> str:
        """The first line of the error."""
        return self.error.partition("\n")[0]


@dataclass(frozen=True)
class Warned:
    """Something that was not as the user asked for; ``stage`` and ``item`` are "" where none is meant."""

    kind: str
    message: str
    stage: str = ""
    item: str = ""

    @property
    def line(self) -> str:
        """As it is shown: what it is about, then the message."""
        word = NOTE if self.kind == NOTE else "warning"
        about = " ".join(filter(None, (self.stage, self.item)))
        return ": ".join(filter(None, (word, about, self.message)))


@dataclass(frozen=True)
class Lowering:
    """A placement that ran out of memory, and the one that the stage went on with, if any."""

    placement: str
    predicted: Bytes
    measured: Bytes
    next: str | None
    time: datetime | None = None


@dataclass
class StageHistory:
    """A stage of a run. ``items`` is what it had to make; ``seconds`` is None until it has ended."""

    name: str
    items: int
    placement: str
    predicted: Bytes
    budget: Bytes = field(default_factory=dict)
    dtype: str = ""
    device: str = ""
    started: datetime | None = None
    measured: Bytes = field(default_factory=dict)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """RAM over time: seconds since the stage started, and bytes."""
    streamed: dict[str, float] | None = None
    seconds: float | None = None
    cached: int = 0
    made: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    lowered: list[Lowering] = field(default_factory=list)

    @property
    def done(self) -> int:
        return len(self.made)

    @property
    def failed(self) -> int:
        return len(self.failures)


@dataclass(frozen=True)
class Counts:
    """Items of a run: made by it, failed in it, and there already (None where its end is not known)."""

    made: int
    failed: int
    cached: int | None


@dataclass
class RunHistory:
    """A run, from its ``run_started`` on. ``exit_code`` is None while it lasts, and if it was killed."""

    name: str = ""
    manifest: str = ""
    stage_names: list[str] = field(default_factory=list)
    items: int = 0
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    started: datetime | None = None
    latest: datetime | None = None
    """When it was last heard of."""
    stages: dict[str, StageHistory] = field(default_factory=dict)
    exit_code: int | None = None
    seconds: float | None = None
    outputs: list[str] = field(default_factory=list)
    error: str = ""
    warnings: list[Warned] = field(default_factory=list)
    """The first of them; ``warned`` counts them all."""
    warned: int = 0

    def take(self, event: Event) -> None:
        """Learn from the next event."""
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self._take(event)
            self.latest = _time(event["time"])

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "run_started":
                self.started = _time(event["time"])
                self.name, self.manifest = _text(event["run"]), _text(event["manifest"])
                self.stage_names = [_text(name) for name in event["stages"]]
                self.items = _whole(event["items"])
                self.machine = dict(event.get("machine", {}))
                self.versions = {name: _text(v) for name, v in event.get("versions", {}).items()}
            case "stage_started":
                name, predicted = _text(event["stage"]), _bytes(event["predicted"])
                self.stages[name] = StageHistory(
                    name,
                    _whole(event["items"]),
                    _text(event["placement"]),
                    predicted,
                    budget=_bytes(event["budget"]) if "budget" in event else {},
                    dtype=_text(event.get("dtype", "")),
                    device=_text(event.get("device", "")),
                    started=_time(event["time"]),
                )
            case "warning":
                self.warned += 1
                if len(self.warnings) < WARNINGS_KEPT:
                    fields = (
                        event["kind"],
                        event["message"],
                        event.get("stage") or "",
                        event.get("item") or "",
                    )
                    self.warnings.append(Warned(*map(_text, fields)))
            case "item_finished":
                _end_item(self.stages[event["stage"]], event)
            case "out_of_memory":
                self.stages[event["stage"]].lowered.append(
                    Lowering(
                        _text(event["placement"]),
                        _bytes(event["predicted"]),
                        _bytes(event["measured"]),
                        None if event["next"] is None else _text(event["next"]),
                        _time(event["time"]),
                    )
                )
            case "stage_finished":
                stage = self.stages[event["stage"]]
                stage.predicted, stage.measured = _bytes(event["predicted"]), _bytes(event["measured"])
                stage.cached, stage.seconds = _whole(event["cached"]), _seconds(event["seconds"])
                stage.memory = [(_seconds(at), _whole(held)) for at, held in event.get("memory", ())]
                streamed = event.get("streamed")
                stage.streamed = streamed and {name: _seconds(value) for name, value in streamed.items()}
                if stage.lowered and stage.lowered[-1].next is not None:
                    stage.placement = stage.lowered[-1].next
            case "run_finished":
                self.outputs = [_text(path) for path in event["outputs"]]
                self.error = _text(event.get("error", ""))
                self.exit_code, self.seconds = _whole(event["exit_code"]), _seconds(event["seconds"])

    @property
    def failures(self) -> list[Failure]:
        return [failure for stage in self.stages.values() for failure in stage.failures.values()]

    @property
    def counts(self) -> Counts:
        failed = {failure.item for failure in self.failures}
        last = self.stages.get(self.stage_names[-1]) if self.stage_names else None
        made = len(last.made - failed) if last else 0
        done = self.done
        return Counts(made, len(failed), None if done is None else max(0, done - made))

    @property
    def done(self) -> int | None:
        """Items that are done, by this run or an earlier one; None while it lasts, and if it was killed."""
        if self.exit_code is None:
            return None
        failed = {failure.item for failure in self.failures}
        if self.outputs:
            return len({_item_of(Path(path).name) for path in self.outputs} - failed)
        # what is made may be tensors alone, which are no outputs
        whole = all(stage.done + stage.failed == stage.items for stage in self.stages.values())
        return self.items - len(failed) if self.exit_code in GOT_THROUGH and whole else 0

    @property
    def current(self) -> StageHistory | None:
        """The stage that it came to."""
        return next(reversed(self.stages.values()), None)

    @property
    def reason(self) -> str:
        """Why it did not end well, in a line: what stopped it, else what its first failure was."""
        if self.error:
            return self.error.partition("\n")[0]
        first = next(iter(self.failures), None)
        return f"{first.stage} {first.item}: {first.reason}" if first else ""


def read_runs(journal: Path) -> Iterator[RunHistory]:
    """The runs that a journal tells of, oldest first; none if it is not there.

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
    """Ids of the items that failed when they last had a turn."""
    failed: set[tuple[str, str]] = set()
    for run in read_runs(journal):
        for stage in run.stages.values():
            failed -= {(stage.name, item) for item in stage.made}
            failed |= {(stage.name, item) for item in stage.failures}
    return {item for _, item in failed}


def _runs_of(events: Iterable[Event]) -> Iterator[RunHistory]:
    run: RunHistory | None = None
    for event in events:
        if event["event"] == "run_started":
            if run is not None:
                yield run
            run = RunHistory()
        if run is not None:  # else the journal has lost the beginning
            run.take(event)
    if run is not None:
        yield run


def _end_item(stage: StageHistory, event: Event) -> None:
    item = _text(event["item"])
    if event["status"] == "done":
        stage.made.add(item)
        stage.failures.pop(item, None)
    else:
        error, trace = _text(event["error"]), _text(event.get("traceback") or "")
        stage.failures[item] = Failure(stage.name, item, error, trace, _whole(event.get("attempts", 1)))


def _item_of(output: str) -> str:
    key, rest = key_and_rest(output)
    return output.removesuffix(f"-{key}{rest}")


def _time(value: Any) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def _text(value: Any) -> str:
    """A string that can be printed: JSON can write halves of characters."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _whole(value: Any) -> int:
    number = int(value)
    if abs(number) > _MOST:
        raise ValueError(number)
    return number


def _bytes(value: Any) -> Bytes:
    return {kind: None if value[kind] is None else _whole(value[kind]) for kind in ("vram", "ram")}


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not abs(seconds) < _MOST:
        raise ValueError(seconds)
    return seconds
