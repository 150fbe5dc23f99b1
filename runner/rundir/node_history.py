"""The history of a node of a run: when it took part, and what it made of each stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from runner import events as ev

if TYPE_CHECKING:
    from datetime import datetime


@dataclass
class NodeShare:
    """A node's share of a stage: items, the seconds that they took, and from when to when."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    begun: datetime | None = None
    ended: datetime | None = None

    def take(self, event: ev.ItemFinished) -> None:
        self.done += not event.failed
        self.failed += event.failed
        self.seconds += event.seconds
        if event.time is not None:
            try:
                begun = event.time - timedelta(seconds=event.seconds)
            except OverflowError:  # the journal is not trusted, nor is the node
                begun = event.time
            self.begun = min(self.begun or begun, begun)
            self.ended = event.time


@dataclass
class NodeHistory:
    """A node; ``state`` is ``"joined"``, ``"lost"`` or ``"left out"``, the latter two for a ``reason``."""

    name: str
    host: str = ""
    device: str = ""
    state: str = "joined"
    reason: str = ""
    shares: dict[str, NodeShare] = field(default_factory=dict)
    """By stage."""

    @property
    def done(self) -> int:
        return sum(share.done for share in self.shares.values())

    @property
    def failed(self) -> int:
        return sum(share.failed for share in self.shares.values())

    @property
    def seconds(self) -> float:
        """Seconds that its items took."""
        return sum(share.seconds for share in self.shares.values())


class Nodes:
    """The nodes of a run, in the order of their first events; empty for a run on one machine."""

    def __init__(self) -> None:
        self.all: dict[str, NodeHistory] = {}

    def take(self, event: ev.Event) -> None:
        """Update with the next event of the run."""
        match event:
            case ev.NodeJoined():
                node = self._named(event.node)
                node.host, node.device, node.state, node.reason = event.host, event.device, "joined", ""
            case ev.NodeRefused():
                node = self._named(event.node)
                node.state, node.reason = "left out", event.reason
            case ev.NodeLost():
                node = self._named(event.node)
                node.state, node.reason = "lost", event.reason
            case ev.ItemFinished(node=str() as name):
                self._named(name).shares.setdefault(event.stage, NodeShare()).take(event)

    def _named(self, name: str) -> NodeHistory:
        return self.all.setdefault(name, NodeHistory(name))
