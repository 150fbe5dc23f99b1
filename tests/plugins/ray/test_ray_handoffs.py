"""Hand-offs that are larger than the object store of a Ray cluster."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nodes import digests
from plugins.ray.ray_runs import Cluster, ray

if TYPE_CHECKING:
    from project import Project

pytest.importorskip("ray")

BIG = """
from pydantic import BaseModel
from runner.api import File, Stage, Tensor, hookimpl
RUNNER_API = 1

class Big(BaseModel):
    prompt: str
    seed: int = 0

@hookimpl
def runner_stages():
    numbers = (Tensor("numbers", "floating", ("N",)),)
    return [
        Stage("big.make", "big:make", params="big:Big", outputs=numbers),
        Stage("big.sum", "big:total", inputs=numbers, outputs=(File("page", ".txt"),)),
    ]

def make(ctx):
    import torch
    return lambda item: {"numbers": torch.full((10_000_000,), float(item.params.seed))}

def total(ctx):
    return lambda item: {"page": str(item.inputs["numbers"].sum().item()).encode()}
"""


def test_handoffs_larger_than_the_store_leave_the_run_small(toy: Project, cluster: Cluster) -> None:
    """Ten of 40 MB through stores of 100 MB: they travel in pieces, and are never held as a whole."""
    items = "".join(f'[[item]]\nid = "i{n}"\nprompt = "x"\nseed = {n}\n' for n in range(10))
    ray(toy, cluster, items, nodes=2)
    toy.plugin("big", BIG)
    for name in ("toy.toml", "ray.toml"):
        text = (toy.folder / name).read_text()
        toy.write(name, text.replace("toy.make", "big.make").replace("toy.write", "big.sum"))
    with toy.start("run", "ray.toml", "--json") as process:
        assert process.stdout is not None
        events, most = [], 0
        for event in map(json.loads, process.stdout):
            events.append(event)
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = max(most, int(status.partition("VmHWM:")[2].split()[0]) << 10)
        process.wait(60)
    assert process.returncode == 0, events[-1]
    assert 0 < most < 500 << 20
    print(f"the run held {most >> 20} MiB")
    toy.runner("run", "toy.toml", "--runs-dir", "local")
    assert digests(toy.folder / "runs/toy") == digests(toy.folder / "local/toy")
