"""The messages between supervisor and worker.

The supervisor sends one :class:`Job`, :class:`ModelCheck`, :class:`Measuring` or :class:`Prepare` through a
pipe, then further items of an open job, and :class:`Stop` to interrupt it; the end of the pipe means that the
supervisor has ended. The worker sends events, one JSON object a line.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from runner.events import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.api import ModelFacts, Stage
    from runner.events import Event
    from runner.files.hashes import Identities
    from runner.manifest.params import RawParams
    from runner.model.checks.adapters import AdapterCheck, Recipients
    from runner.model.checks.request import ComponentCheck
    from runner.model.files import ComponentPlace
    from runner.model.preparation import Preparation
    from runner.placements import ComponentPlacement
    from runner.plan.measured import Measurement

ITEMS_PER_PART = 500
MESSAGE_LIMIT = 1 << 16  # bytes; of a message between supervisor and fork server


@dataclass(frozen=True)
class Input:
    """An input of an item: an output in a hand-off, or ``file`` beside the hand-off."""

    handoff: Path
    key: str
    output: str
    file: Path | None = None


@dataclass(frozen=True)
class JobAdapters:
    """The adapters (LoRA) that change components of a stage."""

    files: Mapping[int, Path]
    """By place in the manifest, in that order."""
    recipients: Recipients


@dataclass(frozen=True)
class JobItem:
    """One item of a job: its parameters and inputs, and the paths of its outputs."""

    id: str
    key: str
    params: RawParams
    inputs: Mapping[str, Input]
    handoff: Path | None
    state: Path
    """The checkpoint: saved by an interrupted attempt, resumed by the next, removed when the item is done."""
    files: Mapping[str, Path]
    lineage: Mapping[str, Any]
    """This stage's entry in the lineage: the key's inputs and the model's source."""
    lora_weights: tuple[float, ...] = ()
    """Of each of the job's adapters."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to run a stage on some items."""

    name: str
    """The stage's name in the manifest."""
    stage: Stage
    distribution: str
    """The distribution that the stage's plugin is installed from."""
    dtype: str
    save_dtype: str | None
    device: str
    threads: int
    vram: int | None
    """Bytes that the allocator may reserve on the device."""
    ram: int | None
    """Bytes of RAM beyond which the supervisor ends the worker."""
    retains_freed_memory: bool
    """Whether the allocator may keep freed RAM for reuse."""
    placements: Mapping[str, ComponentPlacement]
    """The placement of each component that has weights."""
    group: int
    """Items that run together if weights are streamed."""
    components: Mapping[str, ComponentPlace]
    """Where the stage's components are."""
    facts: ModelFacts | None
    """Of the model, for a stage whose parameters depend on it."""
    dtypes: Mapping[str, str]
    """For components whose config alone the stage reads: the dtypes that other stages compute them in."""
    retries: int
    timeout: float | None
    """Seconds that one item may compute."""
    checkpoint_every: int
    """Steps between checkpoints."""
    items: tuple[JobItem, ...]
    adapters: JobAdapters | None = None
    is_open: bool = False
    """Whether more items may come."""
    files: Identities = field(default_factory=dict)
    """The files that it loads, each with its identity at a time when its content was known."""

    def send(self, pipe: IO[bytes]) -> None:
        """Send it in parts: pickling ten thousand items at once would take 100 MB."""
        parts = range(0, len(self.items), ITEMS_PER_PART)
        pickle.dump((replace(self, items=()), len(parts)), pipe)
        for first in parts:
            pickle.dump(self.items[first : first + ITEMS_PER_PART], pipe)
        pipe.flush()


@dataclass(frozen=True)
class MoreItems:
    """Further items of an open job; after the ``last`` of these, none come."""

    items: tuple[JobItem, ...]
    last: bool = False


@dataclass(frozen=True)
class Stop:
    """Interrupts a job: its worker ends at the next block, step or item."""


@dataclass(frozen=True)
class ModelCheck:
    """Components to check, and adapters to try on them; the answer is an event ``checked`` for each."""

    checks: tuple[ComponentCheck | AdapterCheck, ...]

    def send(self, pipe: IO[bytes]) -> None:
        pickle.dump((self, 0), pipe)
        pipe.flush()


@dataclass(frozen=True)
class Measuring:
    """Activations to measure; the answers are events: ``ready``, then ``measured`` for each."""

    measurements: tuple[Measurement, ...]

    def send(self, pipe: IO[bytes]) -> None:
        pickle.dump((self, 0), pipe)
        pipe.flush()


@dataclass(frozen=True)
class Prepare:
    """A component to write anew into the cache; the answers are events ``prepared``."""

    preparation: Preparation
    files: Identities
    """As in a :class:`Job`."""

    def send(self, pipe: IO[bytes]) -> None:
        pickle.dump((self, 0), pipe)
        pipe.flush()


def receive(pipe: IO[bytes]) -> Job | ModelCheck | Measuring | Prepare:
    """Receive the worker's request."""
    # the sender is our own supervisor: nothing from outside is ever unpickled
    request, parts = pickle.load(pipe)  # noqa: S301
    if isinstance(request, ModelCheck | Measuring | Prepare):
        return request
    if not isinstance(request, Job):
        raise TypeError(f"not a job: {type(request)}")
    items = chain.from_iterable(pickle.load(pipe) for _ in range(parts))  # noqa: S301
    return replace(request, items=tuple(items))


def send(message: MoreItems | Stop, pipe: IO[bytes]) -> None:
    """Send what follows a request."""
    pickle.dump(message, pipe)
    pipe.flush()


def messages(pipe: IO[bytes]) -> Iterator[MoreItems | Stop]:
    """What follows a request, until the supervisor ends, however that happens."""
    while True:
        try:
            message = pickle.load(pipe)  # noqa: S301 - our own supervisor's, as above
        except (EOFError, OSError, pickle.UnpicklingError):
            return
        yield message


def encode_event(event: Event) -> bytes:
    return json.dumps(encode(event)).encode() + b"\n"


def decode_event(line: bytes) -> Event | None:
    """Parse a line of the worker; None for an event that this version does not know."""
    return decode(json.loads(line))
