"""Whether two files show the same: by their bytes, else by the pixels of pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from runner.files.provenance import without_provenance


@dataclass(frozen=True)
class Comparison:
    same: bool
    told: str
    """In words: ``bit for bit``, ``3 of 16384 pixels differ, by 1 of 255 at most``."""


def compare(old: bytes, new: bytes) -> Comparison:
    """Compare two files without what they say of themselves."""
    if without_provenance(old) == without_provenance(new):
        return Comparison(same=True, told="bit for bit")
    try:
        return _compare_pixels(old, new)
    except Exception:  # no pictures, or none that can be compared: Pillow raises what it likes
        return Comparison(same=False, told="the bytes differ")


def _compare_pixels(old: bytes, new: bytes) -> Comparison:
    from PIL import Image, ImageChops  # comes with the plugins that draw

    before, after = (Image.open(io.BytesIO(data)) for data in (old, new))
    if (before.mode, before.size) != (after.mode, after.size):
        shown = [f"{p.size[0]} x {p.size[1]} {p.mode}" for p in (before, after)]
        return Comparison(same=False, told=f"a picture of {shown[1]}, not of {shown[0]}")
    bands = ImageChops.difference(before, after).split()
    largest: Any = bands[0]
    for band in bands[1:]:
        largest = ImageChops.lighter(largest, band)
    counts = largest.histogram()
    different = sum(counts[1:])
    if different == 0:
        return Comparison(same=True, told="pixel for pixel; the file was written by another program")
    most = max(n for n, count in enumerate(counts) if count)
    total = before.size[0] * before.size[1]
    return Comparison(same=False, told=f"{different} of {total} pixels differ, by {most} of 255 at most")
