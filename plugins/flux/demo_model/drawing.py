"""Draws prompts with a manifest and the `runner` command, as users do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .prompts import write_prompts
from .scenes import CANVASES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .prompts import Prompt
    from .scenes import Picture

TOKENS = 64  # of T5
MANIFEST = """\
# Purpose:   the demo model's held-out captions, to be judged.
# Hardware:  any.
# Command:   runner run held-out.toml

version = 1
name = "held-out"

[model]
source = "{checkpoint}"

[budget]
device = "cpu"
threads = 1

[[stage]]
name = "encode"
uses = "flux.encode"
save_dtype = "bfloat16"
[stage.with]
max_sequence_length = {tokens}

[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[stage.with]
steps = {steps}
guidance_scale = {guidance}
height = {height}
width = {width}

[[stage]]
name = "decode"
uses = "flux.decode"

[batch]
file = "held-out.jsonl"
"""


@dataclass(frozen=True)
class Settings:
    """How a picture is drawn; the defaults are the demo's own."""

    steps: int = 12
    guidance: float = 3.5
    canvas: tuple[int, int] = CANVASES[0]  # height, width


def draw(checkpoint: Path, settings: Settings, folder: Path, prompts: Sequence[Prompt]) -> list[Picture]:
    """The pictures of the prompts, drawn by `runner run` in `folder`; existing ones are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = settings.canvas
    manifest = MANIFEST.format(
        checkpoint=checkpoint.resolve(), tokens=TOKENS, steps=settings.steps, guidance=settings.guidance,
        height=height, width=width,
    )  # fmt: skip
    (folder / "held-out.toml").write_text(manifest)
    write_prompts(folder / "held-out.jsonl", prompts)
    command = [sys.executable, "-m", "runner", "run", "held-out.toml", "--json"]
    events = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    outputs = json.loads(events.splitlines()[-1])["outputs"]
    return [np.asarray(Image.open(path).convert("RGB")) for path in outputs]
