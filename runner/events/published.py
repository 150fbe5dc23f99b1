"""Events of a run, for its listeners: the display, the journal, the report, ``run --json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner.events.codec import LEFT_OUT, Event
from runner.events.json_values import Bytes  # noqa: TC001 - types of fields are read when it runs

# of a run


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event, kind="run_started"):
    """The run directory is locked, and work begins."""

    run: str
    manifest: str
    stages: list[str]
    items: int
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    content: str = ""
    """Digest of the manifest's file and of its file of items, before anything was overridden."""
    overridden: bool = False
    """Whether the command line changed what the manifest says (``--set``, ``--prompt``)."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event, kind="run_finished"):
    """The run has ended; ``error`` says why it stopped early."""

    exit_code: int
    outputs: list[str]
    seconds: float
    error: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Waiting(Event, kind="waiting"):
    """Another run holds the run directory or the device."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class FetchProgress(Event, kind="fetch_progress"):
    """A model is being downloaded: bytes so far, and in all."""

    source: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Fetched(Event, kind="fetched"):
    """``runner fetch`` has a model: its commit, and the one that was on this machine before."""

    source: str
    revision: str | None = None
    variant: str | None = None
    commit: str | None
    before: str | None
    folder: str


@dataclass(frozen=True, kw_only=True)
class ManifestsFinished(Event, kind="summary"):
    """The last event where several manifests were run: what became of each."""

    exit_code: int
    manifests: list[dict[str, Any]]


# of a stage


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event, kind="stage_started"):
    """A stage's worker starts; a stage with nothing to do is not started. Sizes are in bytes."""

    stage: str
    items: int
    placement: str
    predicted: Bytes
    distinct: int | None = None
    """Pieces of work: items of one key share theirs."""
    budget: Bytes = field(default_factory=dict)
    device: str = ""
    dtype: str = ""
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class StageReady(Event, kind="stage_ready"):
    """A worker has imported and loaded all that it needs, and begins with the items."""

    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Memory(Event, kind="memory"):
    """Bytes of RAM that the stage's worker holds now."""

    stage: str
    ram: int


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Event, kind="out_of_memory"):
    """A worker ran out of memory; ``next`` is the placement that the stage goes on with, if it does."""

    stage: str
    placement: str
    predicted: Bytes
    measured: Bytes
    error: str = ""
    next: str | None


@dataclass(frozen=True, kw_only=True)
class WorkerDied(Event, kind="worker_died"):
    """A worker crashed, hung or was killed, at these items; they are tried once more."""

    stage: str
    items: list[str]
    error: str


@dataclass(frozen=True, kw_only=True)
class StageFinished(Event, kind="stage_finished"):
    """A stage's worker has exited: counts of items, and peaks in bytes."""

    stage: str
    seconds: float
    done: int = 0
    cached: int
    failed: int = 0
    predicted: Bytes
    measured: Bytes
    streamed: dict[str, float] | None = None
    memory: list[tuple[float, int]] = field(default_factory=list)
    """RAM over time: seconds since the stage started, and bytes."""


# of an item; workers send these as they stand


@dataclass(frozen=True, kw_only=True)
class Progress(Event, kind="progress"):
    """A step of an item is done."""

    stage: str
    item: str
    step: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Resumed(Event, kind="resumed"):
    """An item goes on from what an interrupted attempt saved; ``seconds`` is what that attempt took."""

    stage: str
    item: str
    step: int
    steps: int
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StateDiscarded(Event, kind="state_discarded"):
    """What an interrupted attempt saved is of no use; the item begins anew."""

    stage: str
    item: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event, kind="warning"):
    """Something differs from what was asked for; ``stage`` and ``item`` are None where none is meant."""

    kind: str
    message: str
    stage: str | None = None
    item: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Retrying(Event, kind="retrying"):
    """An item failed, and is tried again."""

    stage: str
    item: str
    error: str
    traceback: str | None = field(default=None, metadata=LEFT_OUT)
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class ItemFinished(Event, kind="item_finished"):
    """An item is done or has failed; ``seconds`` is what it computed, over all attempts."""

    stage: str
    item: str
    key: str = ""
    status: str
    seconds: float = 0.0
    error: str | None = None
    traceback: str | None = field(default=None, metadata=LEFT_OUT)
    attempts: int = 1
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.status != "done"


PUBLISHED: tuple[type[Event], ...] = (
    RunStarted,
    Waiting,
    FetchProgress,
    Fetched,
    StageStarted,
    StageReady,
    Resumed,
    Progress,
    ItemFinished,
    StageFinished,
    RunFinished,
    ManifestsFinished,
    Warned,
    Retrying,
    StateDiscarded,
    WorkerDied,
    OutOfMemory,
)
"""The kinds that ``run --json`` and ``fetch --json`` print: in their usual order, then those of trouble."""
