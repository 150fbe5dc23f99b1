"""Frames: whole whatever the pieces that they come in, bounded, and refused where they are not ours."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.remote.wire import HEAD_LIMIT, PIECE, Frames, WireError, encode

HEADER = struct.Struct(">4sII")


@given(
    st.lists(st.tuples(st.dictionaries(st.text(), st.integers() | st.text()), st.binary(max_size=50))),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_are_whole_whatever_the_pieces(
    frames: list[tuple[dict[str, object], bytes]], sizes: list[int]
) -> None:
    data = b"".join(encode(head, body) for head, body in frames)
    reader, found, turn = Frames(), [], 0
    while data:
        size = sizes[turn % len(sizes)]
        found += list(reader.feed(data[:size]))
        data, turn = data[size:], turn + 1
    assert found == frames


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEADER.pack(b"rnr1", HEAD_LIMIT + 1, 0),
        HEADER.pack(b"rnr1", 2, PIECE + 1) + b"{}",
        HEADER.pack(b"rnr1", 2, 0) + b"[]",
        HEADER.pack(b"rnr1", 3, 0) + b"{x}",
        HEADER.pack(b"rnr1", 4, 0) + b"\xff\xfe\xff\xfe",
        HEADER.pack(b"rnr1", 200_000, 0) + b"[" * 200_000,
        HEADER.pack(b"rnr1", 4, 0) + b"\x80\x04N.",  # a pickle
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        list(Frames().feed(data))


def test_frames_before_one_that_is_refused_are_taken() -> None:
    frames = Frames().feed(encode({"a": 1}) + b"x" * 12)
    assert next(frames) == ({"a": 1}, b"")
    with pytest.raises(WireError):
        next(frames)


def test_what_the_other_side_would_refuse_is_not_sent() -> None:
    with pytest.raises(WireError, match="larger than"):
        encode({"a": "x" * HEAD_LIMIT})
    with pytest.raises(WireError, match="larger than"):
        encode({}, b"x" * (PIECE + 1))
    with pytest.raises(WireError, match="as JSON"):
        encode({"a": object()})
    assert len(encode({}, b"x" * PIECE)) < PIECE + 100
    assert json.loads(encode({"a": "é"})[HEADER.size :]) == {"a": "é"}
