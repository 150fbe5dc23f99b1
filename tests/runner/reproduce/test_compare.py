"""Whether two files show the same."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from runner.files.provenance import with_provenance
from runner.reproduce.compare import compare


def png(mode: str = "RGB", *, changed: int = 0, size: tuple[int, int] = (8, 4), **options: object) -> bytes:
    picture = Image.new(mode, size, 7 if mode == "L" else (7,) * len(mode))
    if changed:
        pixel: Any = picture.getpixel((0, 0))
        picture.putpixel((3, 2), 7 + changed if mode == "L" else (7, 7 + changed, *pixel[2:]))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("old", "new", "same", "reported"),
    [
        (png(), with_provenance(png(), {"key": "k", "lineage": {}}), True, "bit for bit"),
        (b"text", b"text", True, "bit for bit"),
        (png(compress_level=0), png(compress_level=9), True, "pixel for pixel"),
        (png(), png(changed=5), False, "1 of 32 pixels differ, by 5 of 255 at most"),
        (png("L"), png("L", changed=1), False, "1 of 32 pixels differ, by 1 of 255 at most"),
        (png("RGBA"), png("RGBA", changed=2), False, "1 of 32 pixels differ, by 2 of 255 at most"),
        (png(), png(size=(4, 4)), False, "a picture of 4 x 4 RGB, not of 8 x 4 RGB"),
        (png(), png("L"), False, "a picture of 8 x 4 L, not of 8 x 4 RGB"),
        (png(), b"text", False, "the bytes differ"),
        (b"text", b"another", False, "the bytes differ"),
    ],
)
def test_two_files_are_compared(old: bytes, new: bytes, same: bool, reported: str) -> None:
    comparison = compare(old, new)
    assert comparison.same == same
    assert comparison.message.startswith(reported)
