"""The command with all blocks streamed: the same files, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

from checkpoints import DEMO

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from project import Outcome, Project

MANIFEST = """
version = 1
name = "streamed"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
save_dtype = "bfloat16"
[stage.with]
max_sequence_length = 24
[[stage]]
name = "widen"
uses = "odd.widen"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[[stage]]
name = "decode"
uses = "flux.decode"
[batch]
file = "items.jsonl"
"""
# embeddings of another width than the transformer takes: only its own code sees that, item by item
ODD = """
from pydantic import BaseModel, ConfigDict
from runner.api import Stage, Tensor, hookimpl

RUNNER_API = 1


class Widen(BaseModel):
    model_config = ConfigDict(extra="forbid")
    times: int = 1


@hookimpl
def runner_stages():
    embeds = (Tensor("prompt_embeds", "floating", ("S", "D")),)
    return [Stage("odd.widen", "odd:start", params="odd:Widen", inputs=embeds, outputs=embeds)]


def start(ctx):
    return lambda item: {"prompt_embeds": item.inputs["prompt_embeds"].repeat(1, item.params.times)}
"""
ITEMS: list[dict[str, Any]] = [
    {"id": "wide", "prompt": "a red circle", "seed": 1, "steps": 14, "height": 48, "width": 64},
    {"id": "fails", "prompt": "a star", "steps": 5, "height": 64, "width": 64, "times": 2},
    {"id": "tall", "prompt": "a blue star", "seed": 2, "steps": 5, "height": 64, "width": 32},
    {
        "id": "cfg",
        "prompt": "a yellow heart",
        "seed": 3,
        "steps": 6,
        "height": 32,
        "width": 64,
        "negative_prompt": "black",
        "true_cfg_scale": 2.5,
    },
    {"id": "tiles", "prompt": "a square", "seed": 4, "steps": 3, "height": 80, "width": 144, "tiling": 128},
]
STAGES = ("encode", "diffuse", "decode")


def command(placement: str, name: str) -> list[str]:
    placements = [f"stage.{stage}.placement={placement}" for stage in STAGES]
    return [
        "run",
        "streamed.toml",
        "--json",
        *(w for s in (*placements, f"name={name}") for w in ("--set", s)),
    ]


def while_it_denoises(project: Project, disturb: Any) -> tuple[int, str, int]:
    """Do something to a streamed run in the middle of its steps: its exit code, its words, its steps after that."""
    process: subprocess.Popen[str] = project.start(*command("stream", "streamed"))
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["step"] >= 3:
            break
    disturb(process)
    rest, stderr = process.communicate(timeout=100)
    return process.returncode, stderr, rest.count('"progress"')


def test_an_interrupted_batch_ends_as_an_undisturbed_one(project: Project) -> None:
    model = shutil.copytree(DEMO, project.folder / "model")
    project.plugin("odd", ODD)
    project.write("streamed.toml", MANIFEST)
    project.write("items.jsonl", "\n".join(map(json.dumps, ITEMS)))
    undisturbed = project.runner(*command("resident", "resident"))
    assert undisturbed.code == 1, undisturbed

    code, stderr, steps = while_it_denoises(project, lambda process: process.send_signal(signal.SIGINT))
    assert code == 130, stderr
    # it ends at the next block, not with the items
    assert steps < sum(item["steps"] for item in ITEMS) / 2
    assert "stopped in stage 'diffuse'" in stderr

    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    code, stderr, _ = while_it_denoises(project, lambda _: cut(weights))
    assert code == 8, stderr
    assert f"{weights.name} was c" in stderr  # cut off, or changed, by what is seen first
    assert "while it was in use" in stderr
    shutil.copy(DEMO / "transformer" / weights.name, weights)

    outcome = project.runner(*command("stream", "streamed"))
    assert outcome.code == 1, outcome
    assert failures(outcome) == failures(undisturbed)
    assert [event["placement"] for event in outcome.of("stage_started")] == ["stream"] * 2
    assert all(event["streamed"]["read"] > 0 for event in outcome.of("stage_finished") if event["done"])
    assert project.outputs("streamed") == project.outputs("resident")
    assert len(project.outputs("streamed")) == 4
    assert handoffs(project, "streamed") == handoffs(project, "resident")


def cut(weights: Path) -> None:
    os.truncate(weights, weights.stat().st_size // 2)


def failures(outcome: Outcome) -> list[tuple[str, str]]:
    return [(e["item"], e["error"]) for e in outcome.of("item_finished") if e["status"] == "failed"]


def handoffs(project: Project, run: str) -> dict[str, list[bytes]]:
    """What each stage handed off, without what is reported of how it was made."""
    from safetensors.torch import load_file

    return {
        f"{file.parent.name}/{file.name}": [
            tensor.view(-1).numpy().tobytes()
            if tensor.dtype.itemsize > 2
            else tensor.float().numpy().tobytes()
            for _, tensor in sorted(load_file(file).items())
        ]
        for file in (project.folder / "runs" / run / "handoff").rglob("*.safetensors")
    }
