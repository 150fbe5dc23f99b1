"""A node as its run sees it: an agent behind a channel, what it has been given, and what it sends."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.remote.messages import FROM_AGENT, Piece, decode
from runner.remote.outbox import Outbox
from runner.remote.staging import Staging
from runner.remote.wire import Frames, WireError

if TYPE_CHECKING:
    import queue
    from pathlib import Path

    from runner.api import Channel
    from runner.remote.messages import Message, Welcome
    from runner.remote.results import FileKey
    from runner.work.demand import Task

    Inbox = queue.SimpleQueue[tuple["Node", "Message | Gone | StorageError"]]

CLOSE_SECONDS = 10.0


class State(Enum):
    """The state of a node."""

    STARTING = "starting"
    READY = "ready"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True)
class Gone:
    """A node's channel has ended."""

    reason: str
    hostile: bool = False
    """Whether it violated the protocol."""


class Node:
    """One agent. Its state is changed by the run's thread alone; two threads of its own send and receive."""

    def __init__(self, channel: Channel, number: int, incoming: Path, inbox: Inbox) -> None:
        """``number`` is different for each node of a run; ``incoming`` is the folder for what nodes send."""
        self.channel = channel
        self.name = re.sub(r"[^A-Za-z0-9._:-]", "_", channel.name)[:60] or f"node-{number}"
        self.state = State.STARTING
        self.reason = ""
        self.code = 0
        """Why it was refused, and the exit code of that."""
        self.welcome: Welcome | None = None
        self.shared = False
        self.held: set[str] = set()
        """Files that it was sent, or made."""
        self.in_stage = False
        self.given: dict[str, Task] = {}
        """Tasks that it has, by item, in the order that it takes them."""
        self.since: dict[str, float] = {}
        """When it was given each."""
        self.alone = False
        """Whether it has one task that another node was lost with: it gets no other beside that."""
        self.asked = False
        """Whether it was asked to give tasks back, and has not answered."""
        self.pace = 0.0
        """Recent mean of the seconds that an item takes on this node; 0 if not known."""
        self.strikes = 0
        self.ram = 0
        self.staging = Staging(incoming / str(number))
        self.expected: dict[str, dict[FileKey, Path]] = {}
        """Files that it may send, with their paths in a run directory, by item."""
        self._inbox = inbox
        self.outbox = Outbox(channel.send, lambda reason: inbox.put((self, Gone(reason))))
        threading.Thread(target=self._listen, name=f"from-{self.name}", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    def group(self, stage: int) -> int:
        """The number of items that it runs together at a stage, by index."""
        return max(1, self.welcome.stages[stage].group) if self.welcome else 1

    def take_back(self, item: str) -> Task | None:
        """Remove a task from those that it holds, and return it; None if it did not hold it."""
        self.since.pop(item, None)
        task = self.given.pop(item, None)
        if not self.given:
            self.alone = False
        return task

    def close(self) -> None:
        """End the agent and remove what it sent and nobody took. Never raises, and takes a bounded time."""
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _close(self) -> None:
        try:
            self.channel.close()
        except Exception as error:  # the channel is a plugin's
            self.reason = self.reason or f"{type(error).__name__}: {error}"
        self.staging.close()

    def _listen(self) -> None:
        frames = Frames()
        gone = Gone("its channel has ended")
        try:
            while (data := self.channel.receive()) is not None:
                for head, body in frames.feed(data):
                    message = decode(head, FROM_AGENT)
                    if isinstance(message, Piece):
                        self._receive(message, body)
                    else:
                        self._inbox.put((self, message))
        except WireError as error:
            gone = Gone(f"it sent what it must not send: {error}", hostile=True)
        except StorageError as error:
            self._inbox.put((self, error))
        except Exception as error:  # the channel is a plugin's
            gone = Gone(f"{type(error).__name__}: {error}")
        self._inbox.put((self, gone))

    def _receive(self, piece: Piece, data: bytes) -> None:
        path = self.expected.get(piece.item, {}).get((piece.role, piece.name))
        if path is None:
            raise WireError(
                f"the file {piece.name[:100]!r} of item {piece.item[:100]!r}, which was not asked for"
            )
        self.staging.write(path, piece, data)
