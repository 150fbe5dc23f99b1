"""Events about other machines that take part in a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.events.codec import Event


@dataclass(frozen=True, kw_only=True)
class NodeJoined(Event, kind="node_joined"):
    """A node takes part from now on; ``stages`` has the placement of each."""

    node: str
    host: str
    device: str = ""
    stages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NodeRefused(Event, kind="node_refused"):
    """A node cannot take part; ``code`` is the exit code that its reason would be on this machine."""

    node: str
    code: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class NodeLost(Event, kind="node_lost"):
    """A node is lost; other nodes make the ``items`` that it had been given."""

    node: str
    reason: str = ""
    stage: str | None = None
    items: list[str] = field(default_factory=list)
