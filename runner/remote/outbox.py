"""Sends messages and files from a thread, in order; files are read when it is their turn."""

from __future__ import annotations

import hashlib
import queue
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.files.storage import open_to_read
from runner.remote.wire import PIECE, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.remote.messages import Message, Piece

JOINED_SECONDS = 5.0


class Outbox:
    """A queue of messages and files for a pipe that may be slow: the caller never blocks."""

    def __init__(self, send: Callable[[bytes], object], failed: Callable[[str], None]) -> None:
        """``failed`` is called, in the thread, with the reason why nothing more can be sent."""
        self._send = send
        self._failed = failed
        self._waiting: queue.SimpleQueue[Message | tuple[Piece, Path] | Callable[[], None] | None]
        self._waiting = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        self._waiting.put(message)

    def put_file(self, piece: Piece, path: Path) -> None:
        """Send a file; ``piece`` names it."""
        self._waiting.put((piece, path))

    def then(self, call: Callable[[], None]) -> None:
        """Call this, in the thread, when all before it was sent."""
        self._waiting.put(call)

    def close(self) -> None:
        """Send what is waiting, then end."""
        self._waiting.put(None)
        self._thread.join(JOINED_SECONDS)

    def _run(self) -> None:
        try:
            while (one := self._waiting.get()) is not None:
                if isinstance(one, tuple):
                    for frame in _pieces(*one):
                        self._send(frame)
                elif callable(one):
                    one()
                else:
                    self._send(one.frame())
        except WireError as error:
            self._failed(f"cannot be sent: {error}")
        except Exception as error:  # the channel is a plugin's
            self._failed(f"{type(error).__name__}: {error}")


def _pieces(piece: Piece, path: Path) -> Iterator[bytes]:
    """The frames of a file. Empty pieces are sent of an empty file alone.

    A file that cannot be opened is not sent. It was removed since: nobody needs it any more, or the item that
    is made from it fails on the other side; neither is the fault of that side.
    """
    digest = hashlib.sha256()
    try:
        opened = open_to_read(path)
    except OSError:
        return
    with opened as file:
        data, offset = file.read(PIECE), 0
        while True:
            digest.update(data)
            following = file.read(PIECE)
            sha256 = None if following else digest.hexdigest()
            yield replace(piece, offset=offset, sha256=sha256).frame(data)
            if not following:
                return
            offset, data = offset + len(data), following
