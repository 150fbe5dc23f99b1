"""Events for the listeners of a run: the display, the journal, the report and ``run --json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner.events.codec import LEFT_OUT, Event
from runner.events.json_values import Bytes  # noqa: TC001 - types of fields are read when it runs
from runner.events.nodes import NodeJoined, NodeLost, NodeRefused

# of a run


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event, kind="run_started"):
    """The run directory is locked and the run begins."""

    run: str
    manifest: str
    stages: list[str]
    items: int
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    content: str = ""
    """SHA-256 of the manifest's file and its item file, without overrides."""
    overridden: bool = False
    """Whether the command line overrides the manifest (``--set``, ``--prompt``)."""
    loras: dict[str, float] = field(default_factory=dict)
    """The adapters of ``[[lora]]``, with the weights that items do not override."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event, kind="run_finished"):
    """The run has ended; ``error`` is the reason if it stopped early."""

    exit_code: int
    outputs: list[str]
    seconds: float
    error: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Waiting(Event, kind="waiting"):
    """The run waits for another one that uses the run directory or the device."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class MeasuringShapes(Event, kind="measuring_shapes"):
    """For the plan, the activations of ``sizes`` item sizes of a stage are about to be measured."""

    stage: str
    sizes: int


@dataclass(frozen=True, kw_only=True)
class PrepareProgress(Event, kind="prepare_progress"):
    """A component is written into the cache, quantised or ``converted``: ``done`` of ``total`` bytes."""

    stage: str
    component: str
    scheme: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class FetchProgress(Event, kind="fetch_progress"):
    """A model is being downloaded: ``done`` of ``total`` bytes."""

    source: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Fetched(Event, kind="fetched"):
    """``runner fetch`` has fetched a model: its commit, and the one on this machine ``before``.

    ``component`` is set for a component from elsewhere, ``file`` for that of a LoRA.
    """

    source: str
    revision: str | None = None
    variant: str | None = None
    component: str | None = None
    file: str | None = None
    commit: str | None
    before: str | None
    folder: str


@dataclass(frozen=True, kw_only=True)
class ManifestsFinished(Event, kind="summary"):
    """The last event of a command that ran several manifests: the result of each."""

    exit_code: int
    manifests: list[dict[str, Any]]


# of a node: a place with one device, where an executor runs stages


# of a stage


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event, kind="stage_started"):
    """A stage's worker starts; stages with nothing to do are skipped. Sizes are in bytes."""

    stage: str
    items: int
    placement: str
    predicted: Bytes
    distinct: int | None = None
    """Number of distinct keys: items with the same key are computed once."""
    budget: Bytes = field(default_factory=dict)
    device: str = ""
    dtype: str = ""
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class StageReady(Event, kind="stage_ready"):
    """A worker has imported and loaded everything, and begins with the items."""

    stage: str
    seconds: float
    node: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Memory(Event, kind="memory"):
    """The RAM that the stage's worker uses now, in bytes."""

    stage: str
    ram: int


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Event, kind="out_of_memory"):
    """A worker ran out of memory; ``next`` is the placement with which the stage is retried, if it is."""

    stage: str
    placement: str
    predicted: Bytes
    measured: Bytes
    error: str = ""
    next: str | None
    node: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class WorkerDied(Event, kind="worker_died"):
    """A worker crashed, hung or was killed while it computed these items; they are retried once."""

    stage: str
    items: list[str]
    error: str
    node: str | None = field(default=None, metadata=LEFT_OUT)


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
    """An item has finished a step."""

    stage: str
    item: str
    step: int
    steps: int
    node: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Resumed(Event, kind="resumed"):
    """An item continues from the saved state of an interrupted attempt, which took ``seconds``."""

    stage: str
    item: str
    step: int
    steps: int
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StateDiscarded(Event, kind="state_discarded"):
    """The saved state of an interrupted attempt cannot be used; the item starts again."""

    stage: str
    item: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event, kind="warning"):
    """Something differs from what was requested; ``stage`` and ``item`` are None if it concerns neither."""

    kind: str
    message: str
    stage: str | None = None
    item: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Retrying(Event, kind="retrying"):
    """An item failed and is retried."""

    stage: str
    item: str
    error: str
    traceback: str | None = field(default=None, metadata=LEFT_OUT)
    attempts: int = 1
    node: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class ItemFinished(Event, kind="item_finished"):
    """An item is done or has failed; ``seconds`` is its computing time over all attempts."""

    stage: str
    item: str
    key: str = ""
    status: str
    seconds: float = 0.0
    error: str | None = None
    traceback: str | None = field(default=None, metadata=LEFT_OUT)
    attempts: int = 1
    params: dict[str, Any] = field(default_factory=dict)
    node: str | None = field(default=None, metadata=LEFT_OUT)
    """Where it was made, if an executor runs the stages elsewhere."""

    @property
    def failed(self) -> bool:
        return self.status != "done"


PUBLISHED: tuple[type[Event], ...] = (
    RunStarted,
    Waiting,
    MeasuringShapes,
    FetchProgress,
    Fetched,
    PrepareProgress,
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
    NodeJoined,
    NodeRefused,
    NodeLost,
)
"""Kinds that ``run --json`` and ``fetch --json`` print: in their usual order, then warnings and errors."""
