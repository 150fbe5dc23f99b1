"""Compares two output files: by their bytes, else by the pixels of images."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from runner.files.provenance import without_provenance


@dataclass(frozen=True)
class Comparison:
    same: bool
    message: str
    """``bit for bit``, ``3 of 16384 pixels differ, by 1 of 255 at most``."""


def compare(old: bytes, new: bytes) -> Comparison:
    """Compare two files, without their provenance records."""
    if without_provenance(old) == without_provenance(new):
        return Comparison(same=True, message="bit for bit")
    try:
        return _compare_pixels(old, new)
    except Exception:  # not images, or of a kind that cannot be compared: Pillow raises any type
        return Comparison(same=False, message="the bytes differ")


def _compare_pixels(old: bytes, new: bytes) -> Comparison:
    from PIL import Image, ImageChops  # installed with the plugins that make images

    before, after = (Image.open(io.BytesIO(data)) for data in (old, new))
    if (before.mode, before.size) != (after.mode, after.size):
        shown = [f"{p.size[0]} x {p.size[1]} {p.mode}" for p in (before, after)]
        return Comparison(same=False, message=f"a picture of {shown[1]}, not of {shown[0]}")
    bands = ImageChops.difference(before, after).split()
    largest: Any = bands[0]
    for band in bands[1:]:
        largest = ImageChops.lighter(largest, band)
    counts = largest.histogram()
    different = sum(counts[1:])
    if different == 0:
        return Comparison(same=True, message="pixel for pixel; the file was written by another program")
    most = max(n for n, count in enumerate(counts) if count)
    total = before.size[0] * before.size[1]
    return Comparison(same=False, message=f"{different} of {total} pixels differ, by {most} of 255 at most")
