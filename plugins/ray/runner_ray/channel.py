"""A channel to an agent on a Ray node: calls of an actor, which scale with time and not with items."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from collections.abc import Callable

UNDER_WAY = 4  # calls to send that are not answered yet: each may hold a piece of a file in the store
CLOSE_SECONDS = 8.0


class RayChannel:
    """The pipe to one agent; see ``runner.api.Channel``."""

    def __init__(self, name: str, actor: Any, ended: Callable[[], None]) -> None:
        self.name = name
        self._actor = actor
        self._ended = ended
        self._sent: deque[Any] = deque()

    def send(self, data: bytes) -> None:
        """Send in order: the actor has one thread for it."""
        self._sent.append(self._actor.send.remote(data))
        while len(self._sent) > UNDER_WAY:
            _answer(self._sent.popleft())

    def receive(self) -> bytes | None:
        """What the agent says; an agent that has ended with a message raises it."""
        data: bytes | None = _answer(self._actor.poll.remote())
        if data is None and (words := _answer(self._actor.last_words.remote())):
            raise RuntimeError(f"the agent has ended: {words}")
        return data

    def ended(self) -> None:
        self._ended()

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the actor or its node may be gone
            ray.get(self._actor.close.remote(), timeout=CLOSE_SECONDS)
        with contextlib.suppress(Exception):
            ray.kill(self._actor)


def _answer(asked: Any) -> Any:
    """The answer of an actor.

    Raises:
        ConnectionError: it cannot answer any more; Ray's own words for that are many.

    """
    try:
        return ray.get(asked)
    except ray.exceptions.RayActorError:
        raise ConnectionError("its Ray node does not answer, or has ended its actor") from None
