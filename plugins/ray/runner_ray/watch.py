"""The nodes of the cluster, as its head tells them, for as long as it does."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import ray

SILENCE = 20.0  # seconds without a word from the head; after 60, Ray itself ends the process
ASKED = 1.0  # seconds between questions
JOINED_SECONDS = 2.0  # for an answer that is under way


class Watch:
    """Asks the head for the cluster's nodes, in a thread: where it is gone, an answer takes for ever."""

    def __init__(self) -> None:
        self._nodes: list[dict[str, Any]] = ray.nodes()
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="ray-nodes", daemon=True)
        self._thread.start()

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as they were a moment ago.

        Raises:
            ConnectionError: the head does not answer.

        """
        if time.monotonic() - self._heard > SILENCE:
            raise ConnectionError(
                f"the head of the Ray cluster has not answered for {SILENCE:.0f} s; "
                "when it is back, run again: what is done counts"
            )
        return self._nodes

    def close(self) -> None:
        """Ask no more: after ``ray.shutdown``, a question would start a cluster here."""
        self._over.set()
        self._thread.join(JOINED_SECONDS)

    def _ask(self) -> None:
        while not self._over.wait(ASKED):
            with contextlib.suppress(Exception):  # then it has not answered
                self._nodes = ray.nodes()
                self._heard = time.monotonic()
