"""What supervisor and worker say to each other.

The supervisor sends one :class:`Job` down the worker's pipe, and later perhaps ``STOP``; the end of that
pipe means that the supervisor is gone. The worker answers with events, a JSON object a line.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from runner.events import decode, encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from runner.api import Stage
    from runner.events import Event
    from runner.manifest.params import RawParams
    from runner.model.checks.request import ComponentCheck

STOP = b"stop\n"
SENT_AT_ONCE = 500  # items
MESSAGE_LIMIT = 1 << 16  # bytes of a message between supervisor and fork server

RESIDENT, STREAM, DEVICE_MAP = "resident", "stream", "device-map"
MODEL_OFFLOAD, GROUP_OFFLOAD, SEQUENTIAL_OFFLOAD = "model-offload", "group-offload", "sequential-offload"
ACCELERATOR_ONLY = (MODEL_OFFLOAD, GROUP_OFFLOAD, SEQUENTIAL_OFFLOAD)
"""Placements, by the names that manifests have for them."""


@dataclass(frozen=True)
class ComponentPlacement:
    """How one component's weights are placed.

    ``device_map`` gives blocks, modules or single weights, by the names of files or modules, the tier that
    they live on: ``"cpu"`` or ``"disk"``; what it does not name lives on the device. ``""`` is the whole
    component.
    """

    placement: str
    device_map: Mapping[str, str] = field(default_factory=dict)

    def within(self, names: Collection[str]) -> ComponentPlacement:
        """The same by the names of a model's own modules and weights.

        Files may have a name more before theirs, or one less: they were saved from what had the model in it.
        """
        return replace(self, device_map={own_name(n, names): tier for n, tier in self.device_map.items()})

    def tier(self, weight: str) -> str:
        """The tier of a weight, ``"device"`` by default: the longest name that it lies under counts."""
        under = f"{plain(weight)}."
        found = [name for name in self.device_map if not name or under.startswith(f"{plain(name)}.")]
        return self.device_map[max(found, key=len)] if found else "device"

    def streamed(self, blocks: Mapping[str, Iterable[str]]) -> list[str]:
        """Those of the blocks, given with their weights, that come and go as a whole.

        All of their weights are on one tier, away from the device. What else is away comes weight by weight.
        """
        tiers = {block: {self.tier(weight) for weight in weights} for block, weights in blocks.items()}
        return [block for block, found in tiers.items() if len(found) == 1 and "device" not in found]


def own_name(name: str, names: Collection[str]) -> str:
    """Which of a model's own ``names`` is meant by a file's name; that name itself if none is."""
    shorter = name
    while shorter and shorter not in names:
        shorter = shorter.partition(".")[2]
    longer = [own for own in names if own.endswith(f".{name}")]
    return shorter or (longer[0] if len(longer) == 1 else name)


def plain(name: str) -> str:
    """A name as modules have it: CLIP's files have a prefix that some versions of its library leave out."""
    return name.removeprefix("text_model.")


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
    ram: int | None
    """Bytes of RAM beyond which the supervisor ends the worker."""
    retains_freed_memory: bool
    """Whether there is room for freed RAM to be kept for what comes next."""
    placings: Mapping[str, ComponentPlacement]
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
