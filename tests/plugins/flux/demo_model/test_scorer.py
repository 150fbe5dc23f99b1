"""The scorer passes true pictures and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from demo_model.scenes import CANVASES, COLOURS, Scene, Thing, draw_scene, lay_out, nominal_spots, paint
from demo_model.scorer import judge

if TYPE_CHECKING:
    from demo_model.scenes import Picture

SCENE = Scene("white", (Thing("red", "circle", "medium"), Thing("blue", "star", "medium")), "left of")


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, Picture]]:
    """Held-out scenes and their true pictures."""
    rng = np.random.default_rng(11)
    scenes = [draw_scene(rng, for_scoring=True) for _ in range(200)]
    return [(scene, paint(scene, lay_out(scene, rng))) for scene in scenes]


def test_true_pictures_pass(drawn: list[tuple[Scene, Picture]]) -> None:
    verdicts = [judge(picture, scene) for scene, picture in drawn]
    assert all(verdict.right and verdict.size and verdict.crisp and verdict.clean for verdict in verdicts)


def test_rotated_captions_fail(drawn: list[tuple[Scene, Picture]]) -> None:
    others = [scene for scene, _ in drawn[1:101]]
    assert not any(judge(picture, other).right for (_, picture), other in zip(drawn, others, strict=False))


@pytest.mark.parametrize("canvas", CANVASES)
def test_every_canvas_is_judged(canvas: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = draw_scene(rng)
        assert judge(paint(scene, lay_out(scene, rng, canvas), canvas), scene).right


@pytest.mark.parametrize(
    ("reported", "wrong"),
    [
        (Scene("green", SCENE.things, "left of"), "background"),
        (Scene("white", (Thing("orange", "circle", "medium"), SCENE.things[1]), "left of"), "colour"),
        (Scene("white", (Thing("red", "square", "medium"), SCENE.things[1]), "left of"), "shape"),
        (Scene("white", SCENE.things, "right of"), "place"),
        (Scene("white", SCENE.things, "above"), "place"),
        (Scene("white", (Thing("red", "circle", "small"), SCENE.things[1]), "left of"), "size"),
    ],
)
def test_each_mistake_is_seen(reported: Scene, wrong: str) -> None:
    verdict = judge(paint(SCENE, nominal_spots(SCENE)), reported)
    assert not getattr(verdict, wrong)
    assert verdict.right == (wrong == "size")


def test_a_thing_too_many_is_seen() -> None:
    picture = paint(SCENE, nominal_spots(SCENE))
    assert judge(picture, SCENE).clean
    picture[8:20, 8:20] = COLOURS["green"]
    assert not judge(picture, SCENE).clean


def test_a_blob_is_no_shape() -> None:
    scene = Scene("white", (Thing("red", "star", "large"),), "centre")
    picture = paint(scene, nominal_spots(scene))
    picture[50:78, 20:108] = COLOURS["red"]
    assert not judge(picture, scene).shape
