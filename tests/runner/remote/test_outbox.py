"""Messages and files on their way to an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.remote.messages import INPUT, TO_AGENT, End, Piece, decode
from runner.remote.outbox import Outbox
from runner.remote.wire import Frames

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_is_gone_is_not_sent_and_all_else_is(tmp_path: Path) -> None:
    sent: list[bytes] = []
    failures: list[str] = []
    outbox = Outbox(sent.append, failures.append)
    (tmp_path / "here").write_bytes(b"here")
    for name in ("gone", "here"):
        outbox.put_file(Piece(INPUT, "", "fox", name, 0), tmp_path / name)
    outbox.put(End())
    outbox.close()
    assert failures == []
    found = [(decode(head, TO_AGENT), body) for head, body in Frames().feed(b"".join(sent))]
    assert [(getattr(message, "name", message.kind), body) for message, body in found] == [
        ("here", b"here"),
        ("end", b""),
    ]
