"""The messages between a run and its agents: typed, and checked field by field when they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from runner.remote.records import reader, to_json
from runner.remote.wire import WireError, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 1
"""Raised when a message changes: a run and its agents have the same, or do not work together."""

HANDOFF, OUTPUT, STATE, INPUT = "handoff", "output", "state", "input"


@dataclass(frozen=True)
class Message:
    """Base of all messages."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__.lower()

    def frame(self, body: bytes = b"") -> bytes:
        """Its frame.

        Raises:
            WireError: it is too large, or holds what is not JSON.

        """
        return encode({"kind": self.kind, **to_json(self)}, body)


# to agents


@dataclass(frozen=True)
class SentParams:
    """The parameters of an item at a stage, as they were given; dates are not among them.

    ``files`` has the names under which the files among them were sent, by the paths that stand for them.
    """

    values: dict[str, Any]
    text_only: bool
    files: dict[str, str]


@dataclass(frozen=True)
class Sample:
    """An item's parameters at each stage: stages are planned for the largest of the samples."""

    item: str
    stages: list[SentParams]


@dataclass(frozen=True)
class Hello(Message):
    """The manifest that an agent is to run stages of. The first message, but for files that it needs."""

    protocol: int
    node: str
    path: str
    manifest: str
    sets: list[str]
    threads: list[int]
    """Of each stage: bits of results depend on them."""
    samples: list[Sample]
    run: str
    """The run directory's path. ``word``: content of a probe file there; agents that can read it share it."""
    word: str


@dataclass(frozen=True)
class Begin(Message):
    """A stage begins; its tasks follow. ``source`` is the model's record for its results.

    ``shared``: results are written into the run directory itself, which both see.
    """

    stage: str
    source: dict[str, Any] | None
    shared: bool


@dataclass(frozen=True)
class Earlier:
    """The key of an item at an earlier stage, and the parameters that name the files of that result."""

    stage: int
    key: str
    suffixes: dict[str, Any]


@dataclass(frozen=True)
class TaskMessage:
    """A task of the stage that has begun. Its key is the hash of ``key_inputs``, which its taker checks."""

    item: str
    key: str
    key_inputs: dict[str, Any]
    given: SentParams
    as_written: dict[str, Any]
    earlier: list[Earlier]


@dataclass(frozen=True)
class Give(Message):
    """More tasks. The files that they need were sent before."""

    tasks: list[TaskMessage]


@dataclass(frozen=True)
class Withdraw(Message):
    """Tasks, by their items, that are to be given back if they have not begun."""

    items: list[str]


@dataclass(frozen=True)
class End(Message):
    """No more tasks of this stage will come."""


@dataclass(frozen=True)
class StopStage(Message):
    """The stage is to end now; states of items in flight are saved and sent."""


# from agents


@dataclass(frozen=True)
class StageOffer:
    """What an agent has for a stage: two agents with one version and fingerprint give the same results."""

    name: str
    version: int
    fingerprint: str
    loras: dict[str, str]
    """The content hashes of the adapters that change the stage, by name."""
    placement: str
    group: int
    device: str
    output_bytes: int
    predicted: dict[str, int | None]
    source: dict[str, Any] | None


@dataclass(frozen=True)
class Welcome(Message):
    """An agent is ready for every stage."""

    protocol: int
    host: str
    pid: int
    versions: dict[str, str]
    stages: list[StageOffer]
    answer: str
    """The content of its answer file in the run directory; empty if it cannot read the probe file."""


@dataclass(frozen=True)
class Refused(Message):
    """An agent cannot take part, with the exit code that this would be."""

    protocol: int
    host: str
    code: int
    error: str


@dataclass(frozen=True)
class AgentEvent(Message):
    """An event of a stage, which the run publishes."""

    event: dict[str, Any]


@dataclass(frozen=True)
class MemoryUse(Message):
    """RAM that the worker holds, in bytes."""

    ram: int


@dataclass(frozen=True)
class Result(Message):
    """An item has ended. The files of one that is done were sent before."""

    item: str
    key: str
    done: bool
    seconds: float
    error: str | None = None
    traceback: str | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Withdrawn(Message):
    """Tasks, by their items, that the agent had not begun and will not."""

    items: list[str]


@dataclass(frozen=True)
class Ended(Message):
    """The agent's part of a stage has ended: exit code 0, or that of the error that ended it."""

    stage: str
    code: int
    error: str = ""
    measured: dict[str, int | None] = field(default_factory=dict)
    streamed: dict[str, float] | None = None
    log: str = ""
    """The end of what the workers printed."""


# both ways


@dataclass(frozen=True)
class Piece(Message):
    """A part of a file, in the frame's body. Pieces of a file come in order; the last has its SHA-256.

    ``item`` is whose file it is, ``name`` its name in the folder of its ``role``.
    """

    role: str
    stage: str
    item: str
    name: str
    offset: int
    sha256: str | None = None


TO_AGENT: Mapping[str, type[Message]] = {
    message.kind: message for message in (Hello, Begin, Give, Withdraw, End, StopStage, Piece)
}
FROM_AGENT: Mapping[str, type[Message]] = {
    message.kind: message
    for message in (Welcome, Refused, AgentEvent, MemoryUse, Result, Withdrawn, Ended, Piece)
}


def decode(head: Any, kinds: Mapping[str, type[Message]]) -> Message:
    """The message of a frame's head.

    Raises:
        WireError: it is of another kind, or a field is missing or has another type.

    """
    kind: Any = kinds.get(str(head.pop("kind", None))) if isinstance(head, dict) else None
    if kind is None:
        raise WireError("it is no message that is expected here")
    try:
        message: Message = reader(kind)(head)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise WireError(f"a field of '{kind.kind}' is not what it must be: {error!r}") from None
    return message
