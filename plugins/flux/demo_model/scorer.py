"""Judges a picture against the scene of its caption, without any trained model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from .scenes import COLOUR_NAMES, COLOURS, RADII, RELATIONS, Scene, Spot, nominal_spots
from .shapes import SHAPES, distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .scenes import Picture

    Mask = NDArray[np.bool_]

PALETTE = np.array([COLOURS[name] for name in COLOUR_NAMES], np.float32)
# Intersection over union with the ideal shape; true pictures have .96 and more. The shape that fits best
# counts if it fits at least as well as the first number says, and as crisp from the second on.
LEAST_OVERLAP, CRISP_OVERLAP = 0.8, 0.93
OFF_PLACE = 13.0  # pixels that a lone thing may be off: about half of the way to another place


@dataclass(frozen=True)
class Verdict:
    """What is right in a picture, for all of its things together."""

    background: bool
    colour: bool
    shape: bool
    place: bool
    size: bool
    crisp: bool  # straight edges, round circles
    clean: bool  # nothing else is there

    @property
    def right(self) -> bool:
        """Fully right, as the model is scored."""
        return self.background and self.colour and self.shape and self.place

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """The names of what is judged."""
        return tuple(field.name for field in fields(cls))


def judge(picture: Picture, scene: Scene) -> Verdict:
    """Compare a picture (height x width x 3) with a scene."""
    labels = _nearest_colours(picture)
    masks = _masks(labels, scene)
    ground = COLOUR_NAMES.index(scene.background)
    wanted = [spot.radius for spot in nominal_spots(scene)]
    least = [0.3 * _unit(thing.shape)[0] * r**2 for thing, r in zip(scene.things, wanted, strict=True)]
    background = bool(_border_colour(labels) == ground and (labels == ground).mean() > 0.3)
    clean = _clean(labels, ground, masks)
    if any(mask.sum() < area for mask, area in zip(masks, least, strict=True)):
        return Verdict(
            background, colour=False, shape=False, place=False, size=False, crisp=False, clean=clean
        )
    fits = [_fit(mask, thing.shape) for mask, thing in zip(masks, scene.things, strict=True)]
    spots = [fit.spot for fit in fits]
    return Verdict(
        background,
        colour=True,
        shape=all(fit.overlap >= max(fit.best, LEAST_OVERLAP) for fit in fits),
        place=_placed(scene, spots, picture.shape[:2]),
        size=all(_nearest_radius(scene, spot) == radius for spot, radius in zip(spots, wanted, strict=True)),
        crisp=all(fit.overlap >= CRISP_OVERLAP for fit in fits),
        clean=clean,
    )


def locate(picture: Picture, scene: Scene) -> tuple[Spot, ...] | None:
    """Where a picture shows the things of its scene; None unless it is right."""
    if not judge(picture, scene).right:
        return None
    masks = _masks(_nearest_colours(picture), scene)
    return tuple(_fit(mask, thing.shape).spot for mask, thing in zip(masks, scene.things, strict=True))


def _masks(labels: NDArray[np.intp], scene: Scene) -> list[Mask]:
    """The pixels of each thing: the biggest patch of its colour."""
    return [_biggest(labels == COLOUR_NAMES.index(thing.colour)) for thing in scene.things]


def _nearest_radius(scene: Scene, spot: Spot) -> float:
    return min(RADII[len(scene.things)], key=lambda radius: abs(radius - spot.radius))


def _nearest_colours(picture: Picture) -> NDArray[np.intp]:
    away = picture[:, :, None].astype(np.float32) - PALETTE
    nearest: NDArray[np.intp] = (away**2).sum(-1).argmin(-1)
    return nearest


def _border_colour(labels: NDArray[np.intp]) -> int:
    sides = (labels[:4], labels[-4:], labels[:, :4], labels[:, -4:])
    return int(np.bincount(np.concatenate([side.ravel() for side in sides])).argmax())


def _clean(labels: NDArray[np.intp], ground: int, masks: Sequence[Mask]) -> bool:
    """No patch of anything but the ground and the things; the thin mixed colours along edges are no patch."""
    rest = labels != ground
    for mask in masks:
        rest &= ~_grown(mask)
    core = ~_grown(_grown(~rest))
    return bool(core.sum() <= 12)


def _grown(mask: Mask) -> Mask:
    """The mask and its four neighbours' pixels."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _biggest(mask: Mask) -> Mask:
    """The biggest connected part of a mask."""
    left, best = mask.copy(), np.zeros_like(mask)
    while left.sum() > best.sum():
        part = np.zeros_like(mask)
        part.flat[left.argmax()] = True
        size = 0
        while size < (size := int(part.sum())):
            part = _grown(part) & left
        left &= ~part
        best = part if part.sum() > best.sum() else best
    return best


@cache
def _unit(shape: str) -> tuple[float, float, float]:
    """Area and centroid (x, y) of a shape of radius 1."""
    y, x = (np.mgrid[-80:80, -80:80].astype(np.float32) + 0.5) / 50
    inside = distance(shape, x, y, 1.0) < 0
    return inside.sum() / 50**2, float(x[inside].mean()), float(y[inside].mean())


@dataclass(frozen=True)
class _Fit:
    """A mask as a shape of the same area and centroid."""

    spot: Spot
    overlap: float  # intersection over union with that shape
    best: float  # the same with the shape that fits best


def _fit(mask: Mask, wanted: str) -> _Fit:
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32) + 0.5
    area, centre_x, centre_y = float(mask.sum()), float(x[mask].mean()), float(y[mask].mean())
    spots, overlaps = {}, {}
    for shape in SHAPES:
        unit_area, unit_x, unit_y = _unit(shape)
        radius = (area / unit_area) ** 0.5
        spots[shape] = Spot(centre_x - unit_x * radius, centre_y - unit_y * radius, radius)
        ideal = distance(shape, x - spots[shape].x, y - spots[shape].y, radius) < 0
        overlaps[shape] = (ideal & mask).sum() / (ideal | mask).sum()
    return _Fit(spots[wanted], overlaps[wanted], max(overlaps.values()))


def _placed(scene: Scene, spots: Sequence[Spot], canvas: tuple[int, int]) -> bool:
    """One thing near its place; of two things, the first in its relation to the second."""
    if len(spots) == 1:
        wanted = nominal_spots(scene, canvas)[0]
        return max(abs(spots[0].x - wanted.x), abs(spots[0].y - wanted.y)) <= OFF_PLACE
    right, down = RELATIONS[scene.where]
    dx, dy = spots[0].x - spots[1].x, spots[0].y - spots[1].y
    along, across = (dx * right, dy) if right else (dy * down, dx)
    if scene.where == "beside":
        along = abs(along)
    return along > 15 and along > abs(across)
