"""Files in pieces: nothing counts that is not whole, and nothing is written elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runner.remote.messages import Piece
from runner.remote.outbox import Outbox
from runner.remote.staging import Staging
from runner.remote.wire import PIECE, Frames, WireError

NAME = Path("outputs/a.txt")


def piece(offset: int, digest: str | None = None) -> Piece:
    return Piece("output", "make", "a", "a.txt", offset, digest)


def test_a_file_in_pieces_has_its_place_when_it_is_whole(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "incoming")
    assert not staging.write(NAME, piece(0), b"one ")
    assert staging.write(NAME, piece(4, hashlib.sha256(b"one two").hexdigest()), b"two")
    assert not (tmp_path / "run").exists()
    staging.place([NAME], tmp_path / "run")
    assert (tmp_path / "run" / NAME).read_bytes() == b"one two"
    staging.close()
    assert not (tmp_path / "incoming").exists()


@pytest.mark.parametrize(
    "pieces",
    [
        [(piece(0, "0" * 64), b"x")],  # another digest
        [(piece(1, hashlib.sha256(b"x").hexdigest()), b"x")],  # the first is missing
        [(piece(0), b"x"), (piece(2, hashlib.sha256(b"xy").hexdigest()), b"y")],
        [(piece(0, hashlib.sha256(b"x").hexdigest()), b"x"), (piece(1), b"y")],  # after the last
    ],
)
def test_what_is_not_what_was_sent_does_not_count(tmp_path: Path, pieces: list[tuple[Piece, bytes]]) -> None:
    staging = Staging(tmp_path)
    *before, (last, data) = pieces
    for one, earlier in before:
        staging.write(NAME, one, earlier)
    with pytest.raises(WireError):
        staging.write(NAME, last, data)
    staging.close()


def test_a_file_that_begins_anew_forgets_what_came(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    staging.write(NAME, piece(0), b"half")
    assert staging.write(NAME, piece(0, hashlib.sha256(b"whole").hexdigest()), b"whole")
    assert (tmp_path / NAME).read_bytes() == b"whole"


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 2 * PIECE])
def test_files_are_sent_in_bounded_pieces(tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"\7" * size)
    sent: list[bytes] = []
    outbox = Outbox(sent.append, pytest.fail)
    outbox.put_file(piece(0), source)
    outbox.close()
    staging, frames = Staging(tmp_path / "in"), Frames()
    for data in sent:
        assert len(data) < PIECE + 1000
        ((head, body),) = frames.feed(data)
        head.pop("kind")
        done = staging.write(NAME, Piece(**head), body)
    assert done
    assert (tmp_path / "in" / NAME).read_bytes() == source.read_bytes()
