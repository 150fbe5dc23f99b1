"""A plugin whose one stage goes in steps, keeps a state, and can be held at any step."""

from __future__ import annotations

WALK = """
from __future__ import annotations
import os, pathlib, random, time
from pydantic import BaseModel, ConfigDict, Field
from runner.api import File, Stage, Tensor, hookimpl

RUNNER_API = 1


class Walk(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    steps: int = Field(20, ge=1)
    hold: int = 0
    poison: int = 0


@hookimpl
def runner_stages():
    return (
        Stage(name="walk.walk", params="walk:Walk", outputs=(Tensor("way", "floating", ("N",)),), start="walk:start"),
        Stage(
            name="walk.tell",
            inputs=(Tensor("way", "floating", ("N",)),),
            outputs=(File("page", ".txt"),),
            start="walk:start_tell",
        ),
    )


def start(ctx):
    import numpy, torch

    folder = pathlib.Path(os.environ["WALK"])

    def one(item):
        done, way = 0, torch.zeros(4, device=ctx.device)
        if item.saved is not None:
            done, way = item.saved.step, item.saved.state["way"]
        for step in range(done + 1, item.params.steps + 1):
            with open(folder / f"{item.id}.steps", "a") as trace:
                trace.write(f"{step}\\n")
            # written into in place, and from every generator that a stage may draw from
            way += torch.rand(4) + random.random() + float(numpy.random.rand())
            if step == item.params.poison:
                way *= float("nan")
            item.step(step, item.params.steps, {"way": way})
            if step == item.params.hold and not (folder / "go").exists():
                (folder / "held").touch()
                while True:
                    time.sleep(0.01)
                    item.step(step, item.params.steps, {"way": way})
        return {"way": way}

    return one


def start_tell(ctx):
    return lambda item: {"page": str(item.inputs["way"].tolist()).encode()}
"""

MANIFEST = """\
version = 1
name = "walk"
[budget]
device = "cpu"
threads = 1
[run]
checkpoint_every = 4
[[stage]]
name = "walk"
uses = "walk.walk"
[[stage]]
name = "tell"
uses = "walk.tell"
[[item]]
id = "free"
prompt = "x"
[[item]]
id = "held"
prompt = "y"
hold = 10
"""
