"""The world: what is held out stays out of the training, and captions say what the scenes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from demo_model import pool, scenes, text, vae
from demo_model.captions import plain_caption, read_caption, write_caption
from demo_model.prompts import held_out_prompts

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np


def test_training_never_draws_what_is_scored(rng: np.random.Generator) -> None:
    scored = {read_caption(prompt.prompt) for prompt in held_out_prompts()}
    assert all(scenes.held_out(scene) for scene in scored)
    trained = [scenes.draw_scene(rng) for _ in range(4000)]
    assert not any(scenes.held_out(scene) for scene in trained)
    kinds = {(thing.colour, thing.shape) for scene in trained for thing in scene.things}
    assert kinds.isdisjoint(scenes.UNSEEN_KINDS)
    assert len(kinds) == len(scenes.COLOURS) * 5 - len(scenes.UNSEEN_KINDS)


def test_pairs_of_scored_things_are_never_shown_together(rng: np.random.Generator) -> None:
    def pair(scene: scenes.Scene) -> frozenset[tuple[str, str]]:
        return frozenset((thing.colour, thing.shape) for thing in scene.things)

    scored = {pair(scene) for p in held_out_prompts() if len((scene := read_caption(p.prompt)).things) == 2}
    assert scored.isdisjoint(pair(scenes.draw_scene(rng)) for _ in range(4000))


@pytest.mark.parametrize("part", [vae, text, pool])
def test_every_part_trains_on_the_training_draw(part: ModuleType) -> None:
    assert part.draw_scene is scenes.draw_scene
    assert scenes.draw_scene.__kwdefaults__ == {"for_scoring": False}


def test_captions_round_trip(rng: np.random.Generator) -> None:
    for index in range(1000):
        scene = scenes.draw_scene(rng, for_scoring=index % 2 == 0)
        caption = write_caption(scene, rng)
        assert read_caption(caption.text) == scene
        assert read_caption(plain_caption(scene)) == scene
        for thing, (start, end) in zip(scene.things, caption.spans, strict=True):
            assert caption.text[start:end].endswith(thing.shape) or thing.shape == "circle"


def test_plain_captions_are_as_people_write() -> None:
    red, blue = scenes.Thing("red", "circle", "large"), scenes.Thing("orange", "star", "medium")
    scene = scenes.Scene("white", (red, blue), "left of")
    assert plain_caption(scene) == "a large red circle to the left of an orange star on a white background"


def test_things_stay_on_the_canvas_and_apart(rng: np.random.Generator) -> None:
    for _ in range(300):
        scene = scenes.draw_scene(rng)
        canvas = scenes.CANVASES[rng.integers(3)]
        spots = scenes.lay_out(scene, rng, canvas)
        assert all(spot.radius >= 16 for spot in spots)
        assert all(0 < spot.x < canvas[1] and 0 < spot.y < canvas[0] for spot in spots)
        assert scenes.paint(scene, spots, canvas).shape == (*canvas, 3)
