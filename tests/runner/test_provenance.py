"""Files that know what they were made from, and are known again by their key."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from runner.provenance import is_of_key, sidecar, write_with_provenance

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
    assert is_of_key(path, KEY)
    assert not is_of_key(path, "0" * 64)
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
    assert is_of_key(path, KEY)
    path.write_bytes(data + b"!")
    assert not is_of_key(path, KEY)


def test_a_png_that_was_cut_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_with_provenance(path, png(), PROVENANCE)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_of_key(path, KEY)
