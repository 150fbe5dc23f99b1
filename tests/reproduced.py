"""A batch of four chained stages whose outputs are made again, and its records, changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.files.provenance import read_provenance, sidecar, without_provenance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Outcome, Project

# texts that replace parameters, files between stages, an input that nobody leaves, two models, renamed inputs,
# and a parameter whose model takes nothing but what is written with a unit
CHAIN = """
from __future__ import annotations
import io
from typing import Annotated
from pydantic import BaseModel, BeforeValidator
from runner.api import Component, File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


def decibels(value):
    if not isinstance(value, str) or not value.endswith("dB"):
        raise ValueError(f"write it with its unit, such as 3dB, not {value!r}")
    return int(value.removesuffix("dB"))


class Caption(BaseModel):
    prompt: str
    loudness: Annotated[int, BeforeValidator(decibels)] = 1
    mark: str | None = "!"


class Draw(BaseModel):
    prompt: str
    seed: int = 0
    side: int = 4


@hookimpl
def runner_stages():
    return (
        Stage(
            name="chain.caption", params="chain:Caption", start="chain:caption",
            outputs=(Text("prompt"), File("sketch", ".png")),
        ),
        Stage(
            name="chain.draw", version=1, params="chain:Draw", start="chain:draw",
            inputs=(File("sketch", ".png"), Tensor("mask", optional=True)),
            outputs=(Tensor("latents", "floating", ("H", "W")),),
            components=(Component("part", "chain:nothing", config_only=True),),
        ),
        Stage(
            name="chain.blend", start="chain:blend",
            inputs=(Tensor("first"), Tensor("second")),
            outputs=(File("picture", ".png"), File("again", ".png"), File("page", ".txt")),
        ),
    )


def picture(numbers):
    from PIL import Image
    size = numbers.shape[1], numbers.shape[0]
    return Image.frombytes("L", size, bytes(int(n * 250) for n in numbers.flatten().tolist()))


def caption(ctx):
    import torch

    def one(item):
        text = item.params.prompt.upper() + (item.params.mark or "") * item.params.loudness
        return {"prompt": text, "sketch": picture(torch.full((2, 2), len(text) / 250))}

    return one


def draw(ctx):
    import torch
    from PIL import Image

    def one(item):
        assert item.params.prompt.isupper() and "mask" not in item.inputs
        with Image.open(item.inputs["sketch"]) as sketch:
            scale = sketch.getpixel((0, 0)) / 250 * ctx.config("part")["scale"]
        seeded = torch.Generator().manual_seed(item.params.seed)
        return {"latents": torch.rand(item.params.side, item.params.side, generator=seeded) * scale}

    return one


def blend(ctx):
    def one(item):
        both = (item.inputs["first"] + item.inputs["second"]) / 2
        text = f"{both.sum().item():.6f}".encode()
        return {"picture": picture(both), "again": picture(both / 2), "page": text}

    return one
"""

MANIFEST = """
version = 1
name = "chain"
[model]
source = "./models/one"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "caption"
uses = "chain.caption"
[[stage]]
name = "z-first"
uses = "chain.draw"
save_dtype = "bfloat16"
[[stage]]
name = "a-second"
uses = "chain.draw"
[stage.model]
source = "../elsewhere/two"
[stage.with]
seed = 5
[[stage]]
name = "blend"
uses = "chain.blend"
[stage.from]
first = "z-first.latents"
second = "latents"
[batch]
file = "items.csv"
[[item]]
id = "fox"
prompt = "ein Füchslein 狐"
loudness = "7dB"
[[item]]
id = "shared"
prompt = "ein Füchslein 狐"
loudness = "7dB"
seed = 9
"""


def outputs(project: Project) -> list[str]:
    folder = project.folder / "runs/chain/outputs"
    return sorted(str(path) for path in folder.iterdir() if not path.name.endswith(".runner.json"))


def results(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def rewrite(picture: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = read_provenance(picture)
    assert record is not None
    for stage in record["lineage"].values():
        change(stage)
    write_sidecar(picture, record)


def write_sidecar(picture: Path, record: dict[str, Any]) -> None:
    picture.write_bytes(without_provenance(picture.read_bytes()))
    sidecar(picture).write_text(json.dumps(record))
