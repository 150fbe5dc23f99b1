"""Stages wired by name: texts replace item fields, files pass as paths, names can be changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from project import Project

MEDIA = """
from pydantic import BaseModel
from runner.api import File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Prompt(BaseModel):
    prompt: str
    seed: int = 0


class Scale(BaseModel):
    times: int = 2


@hookimpl
def runner_stages():
    return (
        Stage("media.rewrite", "media:rewrite", params="media:Prompt", outputs=(Text("prompt"),)),
        Stage("media.draw", "media:draw", params="media:Prompt", outputs=(File("picture", ".txt"), Tensor("size", "int64", ()))),
        Stage("media.upscale", "media:upscale", params="media:Scale", inputs=(File("image", ".txt"),), outputs=(File("image", ".txt"), File("thumbnail", ".txt"))),
        Stage("media.bytes", "media:upscale", inputs=(Tensor("size", "floating"),), outputs=(Text("t"),)),
        Stage("media.ranked", "media:upscale", inputs=(Tensor("size", "int64", ("N",)),), outputs=(Text("t"),)),
        Stage("media.png", "media:upscale", inputs=(File("picture", ".png"),), outputs=(Text("t"),)),
        Stage("media.perhaps", "media:perhaps", inputs=(Tensor("absent", optional=True),), outputs=(Text("t"),)),
    )


def rewrite(ctx):
    return lambda item: {"prompt": item.params.prompt + ", in oil"}


def draw(ctx):
    import torch

    def one(item):
        drawn = f"<{item.params.prompt}>".encode()
        return {"picture": drawn, "size": torch.tensor(len(drawn))}

    return one


def upscale(ctx):
    def one(item):
        data = item.inputs["image"].read_bytes()
        return {"image": data * item.params.times, "thumbnail": data[:3]}

    return one


def perhaps(ctx):
    return lambda item: {"t": str(sorted(item.inputs))}
"""

MANIFEST = """
version = 1
name = "media"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "rewrite"
uses = "media.rewrite"
[[stage]]
name = "draw"
uses = "media.draw"
[[stage]]
name = "upscale"
uses = "media.upscale"
[stage.from]
image = "draw.picture"
[[item]]
id = "fox"
prompt = "a fox"
"""


def test_texts_and_files_pass_from_stage_to_stage(project: Project) -> None:
    project.plugin("media", MEDIA)
    project.write("media.toml", MANIFEST)
    outcome = project.runner("run", "media.toml", "--json")
    assert outcome.code == 0, outcome
    files = {path.name: path.read_bytes() for path in (project.folder / "runs/media/outputs").glob("*.txt")}
    (image,) = [data for name, data in files.items() if name.endswith(".image.txt")]
    (thumbnail,) = [data for name, data in files.items() if name.endswith(".thumbnail.txt")]
    assert image == b"<a fox, in oil>" * 2
    assert thumbnail == b"<a "
    sidecar = next((project.folder / "runs/media/outputs").glob("*.image.txt.runner.json"))
    assert list(json.loads(sidecar.read_bytes())["lineage"]) == ["draw", "rewrite", "upscale"]

    # the file between two stages is held against its digest like any hand-off
    between = next((project.folder / "runs/media/handoff/draw").glob("*.picture.txt"))
    between.write_bytes(b"something else")
    outcome = project.runner("run", "media.toml", "--json", "--set", "stage.upscale.with.times=3")
    assert [e["stage"] for e in outcome.of("stage_started")] == ["draw", "upscale"], outcome
    outputs = [Path(path) for path in outcome.of("run_finished")[0]["outputs"]]
    assert (project.folder / outputs[0]).read_bytes() == b"<a fox, in oil>" * 3

    # another prompt upstream of the text is another picture downstream
    outcome = project.runner("run", "media.toml", "--json", "--set", "item.fox.prompt=an owl")
    assert [e["stage"] for e in outcome.of("stage_started")] == ["rewrite", "draw", "upscale"]


def refused(project: Project, stage: str, *more: str) -> str:
    project.plugin("media", MEDIA)
    project.write("media.toml", MANIFEST.replace('uses = "media.upscale"', f'uses = "media.{stage}"'))
    outcome = project.invoke("validate", "media.toml", *more)
    assert outcome.code == 3, outcome
    return outcome.stderr


def test_types_ranks_and_suffixes_are_checked_before_anything_runs(project: Project) -> None:
    text = MANIFEST.replace('[stage.from]\nimage = "draw.picture"\n', "")
    for stage, words in {
        "bytes": "stage 'draw' leaves 'size' as int64, and stage 'upscale' needs floating",
        "ranked": "stage 'draw' leaves 'size' with shape (), and stage 'upscale' needs (N)",
        "png": "stage 'draw' leaves 'picture' as a .txt file, and stage 'upscale' needs a .png file",
    }.items():
        project.plugin("media", MEDIA)
        project.write("media.toml", text.replace('uses = "media.upscale"', f'uses = "media.{stage}"'))
        outcome = project.invoke("validate", "media.toml")
        assert outcome.code == 3, outcome
        assert words in outcome.stderr, outcome


def test_a_renamed_source_that_does_not_exist_is_reported(project: Project) -> None:
    assert "no earlier stage leaves 'pictrue'; did you mean 'picture'?" in refused(
        project, "upscale", "--set", "stage.upscale.from.image=pictrue"
    )
    assert "no earlier stage leaves 'picture'" in refused(
        project, "upscale", "--set", "stage.upscale.from.image=rewrite.picture"
    )


def test_an_optional_input_may_be_absent(project: Project) -> None:
    project.plugin("media", MEDIA)
    text = MANIFEST.replace('[stage.from]\nimage = "draw.picture"\n', "")
    project.write("media.toml", text.replace('uses = "media.upscale"', 'uses = "media.perhaps"'))
    assert project.invoke("validate", "media.toml").code == 0
