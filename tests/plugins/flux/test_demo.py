"""The demo, judged by what it draws: backgrounds, colours, shapes and places that the prompts ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli
from demo_model.captions import read_caption
from demo_model.scorer import judge
from PIL import Image

if TYPE_CHECKING:
    from project import Project

MANIFEST = Path(__file__).parents[3] / "manifests" / "demo.toml"


def test_the_demo_draws_what_its_prompts_say(project: Project) -> None:
    prompts = tomli.loads(MANIFEST.read_text())["batch"]["prompts"]

    outcome = project.runner("demo", "--json")

    assert outcome.code == 0, outcome
    assert (project.folder / "demo.toml").read_bytes() == MANIFEST.read_bytes()
    outputs = outcome.of("run_finished")[0]["outputs"]
    assert len(outputs) == len(prompts) == 6
    scenes = [read_caption(prompt) for prompt in prompts]
    pictures = [pixels(project.folder / path) for path in outputs]
    for picture, scene in zip(pictures, scenes, strict=True):
        assert judge(picture, scene).right, scene
    # the judge is no friend: it refuses every picture under another prompt
    turned = [*scenes[1:], scenes[0]]
    assert not any(judge(picture, scene).right for picture, scene in zip(pictures, turned, strict=True))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
