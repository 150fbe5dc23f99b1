"""Messages: the same after a journey, and refused where a field is not what it must be."""

from __future__ import annotations

from typing import Any

import pytest

from runner.remote.messages import (
    FROM_AGENT,
    TO_AGENT,
    AgentEvent,
    Begin,
    Earlier,
    End,
    Ended,
    Give,
    Hello,
    MemoryUse,
    Message,
    Piece,
    Refused,
    Result,
    Sample,
    SentParams,
    StageOffer,
    StopStage,
    TaskMessage,
    Welcome,
    Withdraw,
    Withdrawn,
    decode,
)
from runner.remote.wire import Frames, WireError

GIVEN = SentParams({"prompt": "a", "seed": 2**64 - 1}, text_only=False, files={"x.png": "0-x.png"})
TASK = TaskMessage(
    "a", "0" * 64, {"params": {}}, GIVEN, {"at": "7"}, [Earlier(0, "1" * 64, {"format": "png"})]
)
OFFER = StageOffer("make", 1, "f", {"style": "a"}, "stream", 4, "cpu", 7, {"ram": 5, "vram": None}, None)
HELLO = Hello(1, "n", "/m.toml", "text", ["a=1"], [2], [Sample("a", [GIVEN])], "/runs/x", "word")
TO = [HELLO, Begin("make", {"source": "x"}, shared=True), Give([TASK]), Withdraw(["a"]), End(), StopStage()]
FROM = [
    Welcome(1, "host", 5, {"torch": "2"}, [OFFER], ""),
    Refused(1, "host", 5, "too small"),
    AgentEvent({"event": "progress"}),
    MemoryUse(7),
    Result("a", "0" * 64, done=True, seconds=1.5),
    Withdrawn(["a"]),
    Ended("make", 0, measured={"ram": 5, "vram": None}, streamed={"read": 1.0}),
]
PIECE = Piece("handoff", "make", "a", "name", 0, "digest")


@pytest.mark.parametrize(
    ("message", "kinds"), [*((m, TO_AGENT) for m in (*TO, PIECE)), *((m, FROM_AGENT) for m in (*FROM, PIECE))]
)
def test_a_message_is_the_same_after_its_journey(message: Message, kinds: Any) -> None:
    ((head, body),) = Frames().feed(message.frame(b"data"))
    assert decode(head, kinds) == message
    assert body == b"data"


def head_of(message: Message, **changes: Any) -> dict[str, Any]:
    ((head, _),) = Frames().feed(message.frame())
    return {**head, **changes}


@pytest.mark.parametrize(
    "head",
    [
        {},
        [],
        {"kind": "unknown"},
        {"kind": ["result"]},
        head_of(HELLO),  # of the other direction
        head_of(FROM[4], done="yes"),
        head_of(FROM[4], done=1),
        head_of(FROM[4], seconds="1"),
        head_of(FROM[4], seconds=float("nan")),
        head_of(FROM[4], item=7),
        head_of(FROM[4], more=1),
        {name: value for name, value in head_of(FROM[4]).items() if name != "key"},
        head_of(FROM[0], stages=[7]),
        head_of(FROM[0], stages=[{**head_of(FROM[0])["stages"][0], "group": 2**70}]),
        head_of(FROM[5], items="a"),
        head_of(FROM[6], measured={"ram": "x"}),
        head_of(PIECE, offset="0"),
    ],
)
def test_what_a_node_must_not_say_is_refused(head: Any) -> None:
    with pytest.raises(WireError):
        decode(head, FROM_AGENT)
