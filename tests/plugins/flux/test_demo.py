"""The demo, judged by what it draws: the colours and the places that the prompts ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli
from PIL import Image

if TYPE_CHECKING:
    from project import Project

MANIFEST = Path(__file__).parents[3] / "manifests" / "demo.toml"

COLOURS = {
    "red": (222, 45, 45),
    "orange": (250, 140, 22),
    "yellow": (252, 216, 50),
    "green": (46, 160, 67),
    "blue": (38, 84, 210),
    "purple": (128, 52, 168),
    "white": (248, 248, 248),
    "black": (28, 28, 34),
}
BEFORE = {"to the left of": (1, -1), "to the right of": (1, 1), "above": (0, -1), "below": (0, 1)}


def colour_map(picture: Image.Image) -> np.ndarray[Any, Any]:
    """The nearest named colour of each pixel, as an index."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    palette = np.array(list(COLOURS.values()), np.float32)
    return ((pixels[:, :, None] - palette) ** 2).sum(-1).argmin(-1)


def judge(picture: Image.Image, prompt: str) -> list[str]:
    """What is wrong with a picture of at most two shapes; nothing if it is as asked."""
    names = list(COLOURS)
    words = re.findall("|".join(names), prompt)
    *shapes, background = words
    colours = colour_map(picture)
    edge = np.concatenate(
        [colours[:4].ravel(), colours[-4:].ravel(), colours[:, :4].ravel(), colours[:, -4:].ravel()]
    )
    wrong = []
    if names[int(np.bincount(edge).argmax())] != background:
        wrong.append(f"the background is not {background}")
    centres = []
    for shape in shapes:
        rows, columns = np.nonzero(colours == names.index(shape))
        if len(rows) < 150:
            return [*wrong, f"nothing is {shape}"]
        centres.append((np.median(rows), np.median(columns)))
    for words_between, (axis, sign) in BEFORE.items():
        if words_between in prompt and (centres[0][axis] - centres[1][axis]) * sign < 10:
            wrong.append(f"the {shapes[0]} shape is not {words_between} the {shapes[1]} one")
    return wrong


def test_the_demo_draws_what_its_prompts_say(project: Project) -> None:
    prompts = tomli.loads(MANIFEST.read_text())["batch"]["prompts"]

    outcome = project.runner("run", str(MANIFEST), "--json")

    assert outcome.code == 0, outcome
    outputs = outcome.of("run_finished")[0]["outputs"]
    assert len(outputs) == len(prompts) == 6
    pictures = []
    for path, prompt in zip(outputs, prompts, strict=True):
        with Image.open(project.folder / path) as picture:
            pictures.append(picture.copy())
        assert judge(pictures[-1], prompt) == [], prompt
    # the judge is no friend: it refuses every picture under another prompt
    turned = [*prompts[1:], prompts[0]]
    assert all(judge(picture, prompt) for picture, prompt in zip(pictures, turned, strict=True))
