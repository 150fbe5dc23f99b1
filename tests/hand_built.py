"""Components, requirements and limits in round numbers of MiB, whose sums are done by hand beside them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from runner.accelerator.overheads import ESTIMATES, Overheads
from runner.api import Activations, Component
from runner.cli.pipelines import open_pipeline
from runner.files.header import TensorInfo
from runner.model.shapes import ComponentShapes
from runner.plan.limits import Limits
from runner.plan.requirements import MemoryRequirements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from project import Project

    from runner.pipeline.binding import Pipeline

MIB = 1 << 20
ITEM = Activations(peak=50 * MIB, suspended=6 * MIB, tokens=1000, passes=20, output_bytes=3 * MIB)
SIZES = {"F32": 4, "BF16": 2, "F16": 2}


def component(
    name: str = "net",
    *,
    blocks: int = 4,
    weights: Sequence[int] = (6, 4),
    head: int = 4,
    dtype: str = "F32",
    **fields: Any,
) -> ComponentShapes:
    """Blocks ``layers.0`` ... with weights of so many MiB in the file, and a head outside of them."""
    tensors: dict[str, TensorInfo] = {}

    def add(weight: str, size: int) -> None:
        start = sum(info.end - info.start for info in tensors.values())
        shape = (size * MIB // SIZES[dtype],)
        tensors[weight] = TensorInfo(dtype, shape, start, start + size * MIB)

    for n in range(blocks):
        for letter, size in zip("abcdef", weights, strict=False):
            add(f"layers.{n}.{letter}.weight", size)
    if head:
        add("head.weight", head)
    return ComponentShapes(Component(name, **{"cls": "torch:Net", **fields}), tensors)


def requirements(
    *shapes: ComponentShapes,
    on_cpu: bool = True,
    item: Activations = ITEM,
    items: int = 5,
    **changes: Any,
) -> MemoryRequirements:
    """Of a stage with these components (one, if none are given) and so many equal items."""
    each = {f"i{n}": item for n in range(items)}
    need = MemoryRequirements(
        shapes or (component(),),
        "float32",
        item,
        each,
        has_formula=True,
        on_cpu=on_cpu,
        overheads=Overheads() if on_cpu else ESTIMATES["cuda"],
    )
    return replace(need, **changes)


def cpu(ram: float | None, **changes: Any) -> Limits:
    """A CPU that streams slowly enough for groups of four."""
    fast: Mapping[str, float] = {"float32": 1e12, "bfloat16": 1e12}
    limits = Limits(
        "cpu", None, None if ram is None else int(ram * MIB), cores=2, disk_read=1e9, measured=fast
    )
    return replace(limits, **changes)


def card(vram: float | None, ram: float | None, **changes: Any) -> Limits:
    """An accelerator of so many MiB."""
    sizes = [None if size is None else int(size * MIB) for size in (vram, ram)]
    fast: Mapping[str, float] = {"float32": 2e12, "bfloat16": 2e12}
    return replace(Limits("cuda", sizes[0], sizes[1], disk_read=1e9, bus=1e10, measured=fast), **changes)


PLUGIN = """
from typing import Annotated
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Activations, Component, Stage, Text, hookimpl

RUNNER_API = 1


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = ""
    peak: int = Field(50, json_schema_extra={"less_memory": [20, 1]})
    suspended: int = 6
    tokens: int = 1000
    passes: int = 20
    leaves: int = 3


@hookimpl
def runner_stages():
    return [
        Stage("formula.run", "formula:start", params="formula:Params", outputs=(Text("said"),),
              components=(Component("net", "torch:Net"),), memory="formula:memory")
    ]


def memory(params, sizes):
    MIB = 1 << 20
    suspended = None if params.suspended == 99 else params.suspended * MIB  # 99: it does not say
    numbers = dict(tokens=params.tokens, passes=params.passes, output_bytes=params.leaves * MIB)
    return Activations(params.peak * MIB * sizes.itemsize // 4, suspended, **numbers)
"""
MANIFEST = """
version = 1
name = "formula"
model = {{ source = "./model" }}
{}
[[stage]]
name = "run"
uses = "formula.run"
{}
"""


def pipeline(
    project: Project,
    stage: str = "",
    items: Sequence[str] = ("", "", "", "", ""),
    top: str = "",
    plugin: str = PLUGIN,
) -> Pipeline:
    """A pipeline of one stage whose parameters are its numbers in MiB; items are more lines of their tables."""
    project.plugin("formula", plugin)
    sys.modules.pop("formula", None)
    net = project.folder / "model/net"
    net.mkdir(parents=True, exist_ok=True)
    save_file({"head.weight": torch.zeros(1)}, net / "model.safetensors")
    text = MANIFEST.format(top, stage)
    text += "".join(f'[[item]]\nid = "i{n}"\n{lines}\n' for n, lines in enumerate(items))
    with project.as_environment():
        return open_pipeline(project.write("formula.toml", text))
