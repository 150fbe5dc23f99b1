"""Files that know what they were made from, and are known again by their key."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from runner.files import provenance
from runner.files.provenance import (
    has_key,
    is_whole,
    read_provenance,
    sidecar,
    without_provenance,
    write_with_provenance,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = "k" * 64
PROVENANCE = {
    "key": KEY,
    "lineage": {"a": {"params": {"prompt": "ein Füchslein 狐"}}, "b": {"params": {"n": 1}}},
}


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_png_carries_it_in_its_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_with_provenance(path, png(), PROVENANCE)
    assert has_key(path, KEY)
    assert not has_key(path, "0" * 64)
    with Image.open(path) as picture:
        picture.load()
        assert picture.getpixel((0, 0)) == (255, 0, 0)
        texts = dict(picture.text)  # type: ignore[attr-defined]
    assert texts["runner-key"] == KEY
    assert json.loads(texts["parameters"]) == {"prompt": "ein Füchslein 狐", "n": 1}
    assert json.loads(texts["runner"]) == PROVENANCE
    assert not sidecar(path).exists()


@pytest.mark.parametrize("data", [b"text", b"", b"\x89PNG\r\n\x1a\n", png() + b"more"])
def test_anything_else_has_a_sidecar(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.bin"
    write_with_provenance(path, data, PROVENANCE)
    assert path.read_bytes() == data
    assert has_key(path, KEY)
    path.write_bytes(data + b"!")
    assert not has_key(path, KEY)


def test_a_png_that_was_cut_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_with_provenance(path, png(), PROVENANCE)
    path.write_bytes(path.read_bytes()[:-1])
    assert not has_key(path, KEY)


def test_it_is_read_back_and_taken_out_again(tmp_path: Path) -> None:
    picture, page = tmp_path / "a.png", tmp_path / "a.txt"
    write_with_provenance(picture, png(), PROVENANCE)
    write_with_provenance(page, b"text", PROVENANCE)
    assert read_provenance(picture) == PROVENANCE
    assert (read_provenance(page) or {})["lineage"] == PROVENANCE["lineage"]
    assert without_provenance(picture.read_bytes()) == png()
    assert without_provenance(b"text") == b"text"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["iTXt", "tEXt"])
def test_it_is_read_from_what_other_programs_saved(tmp_path: Path, kind: str, packed: bool) -> None:
    text = json.dumps(PROVENANCE)  # in ASCII: tEXt holds Latin-1
    chunks = PngInfo()
    chunks.add_text("Software", "another", zip=packed)
    if kind == "iTXt":
        chunks.add_itxt("runner", text, "de", "Läufer", zip=packed)
    else:
        chunks.add_text("runner", text, zip=packed)
    with Image.open(io.BytesIO(png())) as picture:
        picture.save(tmp_path / "a.png", pnginfo=chunks)
    assert read_provenance(tmp_path / "a.png") == PROVENANCE


@pytest.mark.parametrize(
    "data", [b"", b"text", png(), png()[:40], b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffiTXtrunner"]
)
def test_a_file_that_tells_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert read_provenance(path) is None
    sidecar(path).write_text("[1]")
    assert read_provenance(path) is None


def test_a_pipe_in_the_place_of_an_output_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(sidecar(tmp_path / "b.txt"))
    (tmp_path / "b.txt").write_text("x")
    assert not has_key(tmp_path / "a.png", "k" * 64)
    assert not has_key(tmp_path / "b.txt", "k" * 64)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(("kind", "start"), [(b"zTXt", b"runner\0\0"), (b"iTXt", b"runner\0\1\0\0\0")])
def test_a_small_chunk_that_unpacks_to_a_large_text_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, start: bytes
) -> None:
    monkeypatch.setattr(provenance, "_TEXT_LIMIT", 10_000)
    for size, reported in ((9000, True), (11_000, False)):
        text = json.dumps({"key": " " * size}).encode()
        data = png()
        (tmp_path / "a.png").write_bytes(data[:33] + chunk(kind, start + zlib.compress(text)) + data[33:])
        assert (read_provenance(tmp_path / "a.png") is not None) == reported


def test_a_large_chunk_is_not_read_and_what_follows_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_TEXT_LIMIT", 10_000)
    data = png()
    large = chunk(b"tEXt", b"runner\0" + json.dumps({"key": " " * 11_000}).encode())
    small = chunk(b"tEXt", b'runner\0{"key": "mine"}')
    (tmp_path / "a.png").write_bytes(data[:33] + large + small + data[33:])
    assert read_provenance(tmp_path / "a.png") == {"key": "mine"}


def test_a_damaged_chunk_hides_no_other(tmp_path: Path) -> None:
    data = png()
    damaged = chunk(b"zTXt", b"runner\0\0not packed") + chunk(b"iTXt", b"runner\0\0\0\0\0\xff\xfe")
    good = chunk(b"tEXt", b'runner\0{"key": "mine"}')
    (tmp_path / "a.png").write_bytes(data[:33] + damaged + good + data[33:])
    assert read_provenance(tmp_path / "a.png") == {"key": "mine"}


def test_a_sidecar_counts_for_its_key_and_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_with_provenance(path, b"text", PROVENANCE)
    record = json.loads(sidecar(path).read_text())
    assert record["sha256"] == hashlib.sha256(b"text").hexdigest()
    assert not has_key(path, "0" * 64)
    for changed in ({**record, "bytes": 5}, {**record, "key": "0" * 64}, [record]):
        sidecar(path).write_text(json.dumps(changed))
        assert not has_key(path, KEY)
    sidecar(path).unlink()
    assert not has_key(path, KEY)


def test_the_sidecar_is_there_before_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without one would be made again."""
    written: list[str] = []
    monkeypatch.setattr(provenance, "write_atomically", lambda path, _: written.append(path.name))
    write_with_provenance(tmp_path / "a.txt", b"text", PROVENANCE)
    assert written == ["a.txt.runner.json", "a.txt"]


def test_only_our_own_chunks_are_taken_out(tmp_path: Path) -> None:
    data = png()
    theirs = data[:33] + chunk(b"tEXt", b"Software\0another") + data[33:]
    path = tmp_path / "a.png"
    write_with_provenance(path, theirs, PROVENANCE)
    assert without_provenance(path.read_bytes()) == theirs


def test_a_png_with_any_byte_altered_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_with_provenance(path, png(), PROVENANCE)
    whole = path.read_bytes()
    assert is_whole(path, KEY)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not is_whole(path, KEY), place
    path.write_bytes(whole)
    assert is_whole(path, KEY)
