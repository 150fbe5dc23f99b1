"""The prompts that the model is scored on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from .captions import write_caption
from .scenes import draw_scene

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COUNT, SET_SEED = 100, 20_000


@dataclass(frozen=True)
class Prompt:
    """One line of a prompts file."""

    id: str
    prompt: str
    seed: int


def held_out_prompts(count: int = COUNT) -> list[Prompt]:
    """Captions of scenes that were held out from the training, the same at every call."""
    rng = np.random.default_rng(SET_SEED)
    texts = [write_caption(draw_scene(rng, for_scoring=True), rng).text for _ in range(count)]
    return [Prompt(f"held-out-{index:03}", text, index) for index, text in enumerate(texts)]


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """The prompts as JSON lines."""
    path.write_text("".join(json.dumps(asdict(prompt)) + "\n" for prompt in prompts))
