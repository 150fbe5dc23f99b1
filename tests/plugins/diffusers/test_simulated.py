"""Pipelines on the simulated accelerator: no misuse of it, and the pictures and clips of the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from pipeline_cases import CASES, reference, stage_tables, write_pictures
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Project

MADE = {
    "sdxl_inpaint": "float32",
    "klein_edit": "bfloat16",
    "sd3": "float32",
    "wan22": "float32",
    "ltx091": "bfloat16",
}
"""Cases, and the dtypes that they are made in."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("policy", "names"),
    [("late", ("wan22",)), ("late", tuple(MADE)), ("random", tuple(MADE))],
    ids=["late-one", "late-all", "random-all"],
)
def test_pipelines_with_streamed_denoisers(
    sim: Project, tiny: Callable[[str], Path], policy: str, names: tuple[str, ...]
) -> None:
    text = 'version = 1\nname = "all"\n[budget]\nthreads = 1\n[[item]]\nid = "made"\n'
    for name in names:
        folder = tiny(CASES[name].checkpoint)
        text += stage_tables(name, CASES[name], folder, MADE[name], denoise='placement = "stream"')
    sim.write("all.toml", text)
    write_pictures(sim.folder)
    sim.environment["SIM_POLICY"] = policy

    outcome = sim.runner("run", "all.toml", "--json", seconds=500)

    assert outcome.code == 0, outcome
    assert {event["device"] for event in outcome.of("stage_started")} == {"sim:0"}
    for path in sim.folder.glob("runs/all/outputs/*.runner.json"):
        name = json.loads(path.read_text())["stage"].removesuffix("-decode")
        folder = tiny(CASES[name].checkpoint)
        expected = reference(CASES[name], folder, sim.folder, getattr(torch, MADE[name]))
        tensors = load_file(path.with_name(path.name.removesuffix(".runner.json"))).values()
        assert all(map(torch.equal, tensors, expected)), name
