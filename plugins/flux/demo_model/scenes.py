"""The scenes that the model draws: one or two things, their layout and ground-truth pictures."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .shapes import SHAPES, distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]  # height x width x 3, sRGB

COLOURS = {
    "red": (222, 40, 42),
    "green": (40, 162, 72),
    "blue": (32, 92, 222),
    "yellow": (252, 216, 50),
    "white": (250, 250, 250),
    "black": (26, 26, 32),
    "purple": (150, 50, 182),
    "orange": (252, 136, 24),
}
COLOUR_NAMES = tuple(COLOURS)
SIZES = ("small", "medium", "large")  # medium if the caption names no size
RADII = {1: (19.0, 28.0, 38.0), 2: (16.5, 21.0, 26.0)}  # pixels, by the number of things in the scene
SIDE = 128  # pixels; a longer side only moves the things further apart
CANVASES = ((SIDE, SIDE), (SIDE, 192), (192, SIDE))  # height, width

# Where the first thing is, as (right, down) steps from the centre; of two things the second is opposite.
PLACES = {"centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1), "beside": (-1, 0)}
STEP = {1: 27.0, 2: 31.0}  # pixels from the centre on a side of 128

# Never in the training set: the model has to combine colour and shape itself.
UNSEEN_KINDS = frozenset(
    {("orange", "heart"), ("purple", "square"), ("white", "triangle"), ("black", "star")}
)
HELD_OUT_SHARE = 6  # one in so many of the remaining combinations is held out too


@dataclass(frozen=True)
class Thing:
    """One coloured shape, as a caption names it."""

    colour: str
    shape: str
    size: str


@dataclass(frozen=True)
class Scene:
    """The content of a caption: a background, and one thing at a place, or two in a relation."""

    background: str
    things: tuple[Thing, ...]
    where: str  # a key of PLACES for one thing, of RELATIONS for two


@dataclass(frozen=True)
class Spot:
    """Where a thing is painted: centre and radius, in pixels."""

    x: float
    y: float
    radius: float


def held_out(scene: Scene) -> bool:
    """Whether a scene belongs to the test set, which is never trained on.

    Held out are all scenes with a colour-shape pair of UNSEEN_KINDS; some pairs of two things, in all
    relations; and some combinations of one thing, its place and the background.
    """
    kinds = sorted((thing.colour, thing.shape) for thing in scene.things)
    if not UNSEEN_KINDS.isdisjoint(kinds):
        return True
    key = f"{kinds}" if len(kinds) > 1 else f"{kinds} {scene.background} {scene.where}"
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0


def draw_scene(rng: np.random.Generator, *, for_scoring: bool = False) -> Scene:
    """A random scene of the training set, or (for_scoring) of the test set."""
    while True:
        scene = _any_scene(rng)
        if held_out(scene) == for_scoring:
            return scene


def _any_scene(rng: np.random.Generator) -> Scene:
    count = 1 if rng.random() < 0.3 else 2
    background, *colours = rng.permutation(COLOUR_NAMES)[: count + 1].tolist()
    things = tuple(
        Thing(colour, str(rng.choice(SHAPES)), str(rng.choice(SIZES, p=[0.3, 0.4, 0.3])))
        for colour in colours
    )
    if count == 1:
        where = rng.choice(tuple(PLACES), p=[0.4, 0.15, 0.15, 0.15, 0.15])
    else:
        where = rng.choice(tuple(RELATIONS), p=[0.23, 0.23, 0.23, 0.23, 0.08])
    return Scene(background, things, str(where))


def nominal_spots(scene: Scene, canvas: tuple[int, int] = (SIDE, SIDE)) -> tuple[Spot, ...]:
    """Where the things of a scene belong on a canvas of (height, width)."""
    height, width = canvas
    count = len(scene.things)
    right, down = (PLACES if count == 1 else RELATIONS)[scene.where]
    dx, dy = right * STEP[count] * width / SIDE, down * STEP[count] * height / SIDE
    radii = (RADII[count][SIZES.index(thing.size)] for thing in scene.things)
    centres = ((width / 2 + dx, height / 2 + dy), (width / 2 - dx, height / 2 - dy))
    return tuple(Spot(x, y, radius) for (x, y), radius in zip(centres, radii, strict=False))


def lay_out(
    scene: Scene, rng: np.random.Generator, canvas: tuple[int, int] = (SIDE, SIDE)
) -> tuple[Spot, ...]:
    """Nominal spots with jitter, larger across the axis of a relation than along it."""
    right, down = (0, 0) if len(scene.things) == 1 else RELATIONS[scene.where]
    reach = (2.0 if right else 4.0, 2.0 if down else 4.0)
    spots = []
    for spot in nominal_spots(scene, canvas):
        dx, dy, scale = rng.uniform(-1, 1, 3)
        spots.append(Spot(spot.x + dx * reach[0], spot.y + dy * reach[1], spot.radius * (1 + 0.03 * scale)))
    return tuple(spots)


def paint(scene: Scene, spots: Sequence[Spot], canvas: tuple[int, int] = (SIDE, SIDE)) -> Picture:
    """The ground-truth picture: flat colours, edges antialiased over one pixel."""
    height, width = canvas
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = COLOURS[scene.background]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    for thing, spot in zip(scene.things, spots, strict=True):
        reach = 1.3 * spot.radius + 2
        rows = slice(max(0, int(spot.y - reach)), max(0, int(spot.y + reach)))
        columns = slice(max(0, int(spot.x - reach)), max(0, int(spot.x + reach)))
        away = distance(thing.shape, x[rows, columns] - spot.x, y[rows, columns] - spot.y, spot.radius)
        cover = np.clip(0.5 - away, 0, 1)[..., None]
        colour = np.asarray(COLOURS[thing.colour], np.float32)
        picture[rows, columns] += cover * (colour - picture[rows, columns])
    return (picture + 0.5).astype(np.uint8)
