"""Captions of scenes, in a modest variety of words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .scenes import COLOUR_NAMES, PLACES, RELATIONS, STEP, Scene, Thing
from .shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

SIZE_WORDS = {"small": ("small", "small", "little"), "medium": ("",), "large": ("large", "large", "big")}
COLOUR_WORDS = {colour: (colour,) for colour in COLOUR_NAMES} | {"purple": ("purple", "purple", "violet")}
SHAPE_WORDS = {shape: (shape,) for shape in SHAPES} | {"circle": ("circle", "circle", "disc")}
WHERE_WORDS = {
    "centre": ("", "", "", "in the center", "in the centre", "in the middle"),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "left of": ("to the left of", "to the left of", "left of"),
    "right of": ("to the right of", "to the right of", "right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under"),
    "beside": ("and", "next to", "beside"),
}
GROUND_WORDS = ("on a {} background",) * 2 + ("against a {} background", "with a {} background")
OPENINGS = ("", "", "", "", "a picture of ", "an image of ", "a drawing of ")
# Common in prompts though in no caption: the tokenizers have them as whole words.
OTHER_WORDS = (
    "photo", "painting", "scene", "shape", "shapes", "simple", "flat", "bright", "dark", "light", "one",
    "two", "there", "is", "are", "draw", "show", "please", "huge", "tiny", "disk", "ball", "box", "in", "by",
)  # fmt: skip


@dataclass(frozen=True)
class Caption:
    """A caption, and the span that names each of its scene's things: [(start, end)] in characters."""

    text: str
    spans: tuple[tuple[int, int], ...]


def plain_caption(scene: Scene) -> str:
    """The caption without variety: 'a red circle above a small blue star on a white background'."""
    return write_caption(scene, None).text


def write_caption(scene: Scene, rng: np.random.Generator | None) -> Caption:
    """A caption of the scene in random words, or with the first of each choice (rng None)."""
    ground = _article(_pick(rng, COLOUR_WORDS[scene.background]))
    ground_first = rng is not None and rng.random() < 0.08
    text, spans = "" if ground_first else _pick(rng, OPENINGS), []
    if ground_first:
        text += f"{ground} background with "
    for index, thing in enumerate(scene.things):
        name = _article(_name(thing, rng))
        spans.append((len(text) + name.index(" ") + 1, len(text) + len(name)))
        text += name
        words = _pick(rng, WHERE_WORDS[scene.where]) if index == 0 else ""
        text += f" {words}" * bool(words) + " " * (index + 1 < len(scene.things))
    if not ground_first:
        text += " " + _pick(rng, GROUND_WORDS).replace("a {}", ground)
    if rng is not None:
        text = text[0].upper() + text[1:] if rng.random() < 0.25 else text
        text += "." * (rng.random() < 0.2)
    return Caption(text, tuple(spans))


def _name(thing: Thing, rng: np.random.Generator | None) -> str:
    colour = _pick(rng, COLOUR_WORDS[thing.colour])
    shape = _pick(rng, SHAPE_WORDS[thing.shape])
    return " ".join(word for word in (_pick(rng, SIZE_WORDS[thing.size]), colour, shape) if word)


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _pick(rng: np.random.Generator | None, words: Sequence[str]) -> str:
    return words[0] if rng is None else words[int(rng.integers(len(words)))]


def read_caption(text: str) -> Scene:
    """Parse a caption: the inverse of write_caption."""
    words = text.lower()
    sizes, colours, shapes = _meanings(SIZE_WORDS), _meanings(COLOUR_WORDS), _meanings(SHAPE_WORDS)
    thing = rf"(?:({_either(sizes)}) )?({_either(colours)}) ({_either(shapes)})\b"
    named = re.findall(thing, words)
    things = tuple(Thing(colours[c], shapes[s], sizes.get(size, "medium")) for size, c, s in named)
    ground = re.search(rf"({_either(colours)}) background", words)
    if ground is None or len(things) not in STEP:
        raise ValueError(f"no caption of one or two things on a background: {text!r}")
    places = _meanings({where: WHERE_WORDS[where] for where in (PLACES if len(things) == 1 else RELATIONS)})
    where = re.search(rf" ({_either(places)})\b", words)
    return Scene(colours[ground[1]], things, places[where[1]] if where else "centre")


def _meanings(words_of: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {word: meaning for meaning, words in words_of.items() for word in words if word}


def _either(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))
