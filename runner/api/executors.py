"""Executors: who runs the stages of a manifest, where that is not this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

AGENT = ("-P", "-m", "runner.remote.agent")
"""Arguments of a Python interpreter that make it an agent: a place where stages run.

An agent reads its standard input and writes its standard output, in bytes that only ``runner`` needs to
understand. It ends when its input ends. What it prints goes to its standard error.
"""


@dataclass(frozen=True)
class Executor:
    """Runs stages elsewhere: manifests choose it by ``[executor] uses``, commands by ``--executor``.

    ``connect`` names a function of ``(params, run)`` that returns :class:`Places`, as a dotted string; it is
    called once for each run, when the run directory is locked. ``params`` names a pydantic model of the other
    keys of ``[executor]``; without it there are none. An executor is in no key: it changes no result.
    """

    name: str
    connect: str
    params: str = ""
    summary: str = ""


class Channel(Protocol):
    """A pipe to one agent, at a place with one device. It may lose the agent, but no bytes before that."""

    name: str
    """Of the place, for people: short, and different from that of every other place."""

    def send(self, data: bytes) -> None:
        """Write to the agent's standard input, in order; blocks while the agent is slow to read.

        Any exception means that the agent is gone.
        """

    def receive(self) -> bytes | None:
        """Read what the agent wrote, waiting for it; empty if there is nothing yet, None when it is gone.

        Called in a thread of its own. Any exception means that the agent is gone.
        """

    def ended(self) -> None:
        """The agent was found to be gone: its place may be offered anew."""

    def close(self) -> None:
        """End the agent, if it runs, and free its place."""


class Places(Protocol):
    """Where agents run. Places may come and go while a run lasts."""

    def new(self) -> Sequence[Channel]:
        """Channels to agents that were started since the last call; called about every second."""

    def waiting(self) -> str:
        """What keeps further agents from starting, such as ``"2 of 4: no free GPU"``; empty if nothing."""

    def close(self) -> None:
        """Free everything. Called once, after all channels were closed."""
