"""What supervisor and worker say to each other.

The supervisor sends one :class:`Job` down the worker's pipe, and later perhaps ``STOP``; the end of that
pipe means that the supervisor is gone. The worker answers with events, a JSON object a line.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from runner.events import decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api import Stage
    from runner.events import Event
    from runner.manifest.params import RawParams
    from runner.model.checks.request import ComponentCheck
    from runner.placements import ComponentPlacement

STOP = b"stop\n"
SENT_AT_ONCE = 500  # items
MESSAGE_LIMIT = 1 << 16  # bytes of a message between supervisor and fork server


@dataclass(frozen=True)
class Input:
    """An input of an item: which output of which hand-off; ``file`` where it is a file beside it."""

    handoff: Path
    key: str
    output: str
    file: Path | None = None


@dataclass(frozen=True)
class JobItem:
    """One item of a job: what it is made from, and where what it makes goes."""

    id: str
    key: str
    params: RawParams
    inputs: Mapping[str, Input]
    handoff: Path | None
    state: Path
    """What an interrupted attempt saves, and the next one goes on from; removed when it is done."""
    files: Mapping[str, Path]
    lineage: Mapping[str, Any]
    """This stage's entry in the lineage: the key's ingredients and the model's source."""


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs to know."""

    name: str
    """The stage's name in the manifest."""
    stage: Stage
    distribution: str
    """What the stage's plugin is installed from."""
    dtype: str
    save_dtype: str | None
    device: str
    threads: int
    vram: int | None
    """Bytes that the allocator may reserve on the device."""
    retains_freed_memory: bool
    """Whether there is room for freed RAM to be kept for what comes next."""
    placements: Mapping[str, ComponentPlacement]
    """Of each component that has weights."""
    group: int
    """Items that streamed weights are brought for together."""
    model: Path | None
    variant: str | None
    """Of the model's weights, where they are there in it."""
    retries: int
    timeout: float | None
    """Seconds that one item may compute."""
    checkpoint_every: int
    """Steps between saved states."""
    items: tuple[JobItem, ...]

    def send(self, pipe: IO[bytes]) -> None:
        """Send it in parts: in one go, ten thousand items would take a hundred MB for a moment."""
        parts = range(0, len(self.items), SENT_AT_ONCE)
        pickle.dump((replace(self, items=()), len(parts)), pipe)
        for first in parts:
            pickle.dump(self.items[first : first + SENT_AT_ONCE], pipe)
        pipe.flush()


@dataclass(frozen=True)
class ModelCheck:
    """Components to be looked at before the first stage starts: an event ``checked`` answers for each."""

    checks: tuple[ComponentCheck, ...]

    def send(self, pipe: IO[bytes]) -> None:
        pickle.dump((self, 0), pipe)
        pipe.flush()


def receive(pipe: IO[bytes]) -> Job | ModelCheck:
    """What a worker is to do."""
    # the pipe comes from our own supervisor: nothing from outside is ever unpickled
    request, parts = pickle.load(pipe)  # noqa: S301
    if isinstance(request, ModelCheck):
        return request
    if not isinstance(request, Job):
        raise TypeError(f"not a job: {type(request)}")
    items = chain.from_iterable(pickle.load(pipe) for _ in range(parts))  # noqa: S301
    return replace(request, items=tuple(items))


def encode_event(event: Event) -> bytes:
    return json.dumps(encode(event)).encode() + b"\n"


def decode_event(line: bytes) -> Event | None:
    """The event of a worker's line; None if this version does not know it."""
    return decode(json.loads(line))
