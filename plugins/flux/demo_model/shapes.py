"""The outlines of the shapes, as signed distances: negative inside, in pixels near the edge."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.floating[Any]]

SHAPES = ("circle", "square", "triangle", "star", "heart")


def distance(shape: str, x: Field, y: Field, radius: float) -> Field:
    """Distance of the points (x right, y down, from the centre) to the outline of a shape of that radius.

    The shapes of one radius look equally big: each reaches about one radius from its centre.
    """
    if shape == "circle":
        return np.hypot(x, y) - 0.95 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.84 * radius
    if shape == "triangle":
        return _star(x, y - 0.22 * radius, 1.18 * radius, points=3, waist=0.5)
    if shape == "star":
        return _star(x, y - 0.05 * radius, 1.12 * radius, points=5, waist=0.45)
    if shape == "heart":
        return _heart(x, y + 0.08 * radius, 0.6 * radius)
    raise ValueError(f"no such shape: {shape}")


def _star(x: Field, y: Field, reach: float, points: int, waist: float) -> Field:
    """A star whose inner corners lie at `waist` times its reach; cos(pi / points) makes a polygon of it."""
    turn = math.pi / points
    length, angle = np.hypot(x, y), np.arctan2(x, -y)  # clockwise from the upward point
    angle = np.abs((angle + turn) % (2 * turn) - turn)  # all points folded onto half of one
    corner = waist * reach * np.array([math.cos(turn), math.sin(turn)])
    edge = corner - np.array([reach, 0.0])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    away: Field = normal[0] * (length * np.cos(angle) - reach) + normal[1] * length * np.sin(angle)
    return away


def _heart(x: Field, y: Field, half: float) -> Field:
    """A square of half side `half` on its corner, with a disc on the middle of each upper side."""
    x = np.abs(x)
    tip = (x + np.abs(y)) / math.sqrt(2) - half
    lobe = np.hypot(x - half / math.sqrt(2), y + half / math.sqrt(2)) - half
    away: Field = np.minimum(tip, lobe)
    return away
