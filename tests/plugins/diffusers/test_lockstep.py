"""Items of different sizes and steps whose denoisers are streamed in lockstep: the same bits as one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from pipeline_cases import CASES, manifest
from stages_here import made, run_stages

from runner.events import Finished, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PICTURES = (
    {"id": "a"},
    {"id": "b", "height": 32, "num_inference_steps": 2, "seed": 8},
    {"id": "c", "width": 96, "num_inference_steps": 3, "prompt": "a fox in the snow, and a long way to go"},
)
CLIPS = (
    {"id": "a"},
    {"id": "b", "num_frames": 5, "num_inference_steps": 2, "seed": 8},
    {"id": "c", "width": 64, "num_inference_steps": 3, "prompt": "a fox in the snow, and a long way to go"},
)
BOTH_EXPERTS = ({**CLIPS[0], "num_inference_steps": 5}, *CLIPS[1:])


@pytest.mark.parametrize(
    ("name", "dtype", "items"),
    [
        ("sdxl_inpaint", "float32", PICTURES),
        ("sdxl_controlnet", "bfloat16", PICTURES),
        ("sd3", "bfloat16", PICTURES),
        ("qwen", "float32", PICTURES),
        ("zimage", "bfloat16", PICTURES),
        ("klein_edit", "float32", PICTURES),
        ("flux", "bfloat16", PICTURES),
        ("wan22", "float32", BOTH_EXPERTS),
        ("wan_i2v", "bfloat16", CLIPS),
        ("ltx", "float32", CLIPS),
    ],
)
def test_streamed_together_is_resident_one_by_one(
    pictures: Path, tiny: Callable[[str], Path], name: str, dtype: str, items: tuple[dict[str, Any], ...]
) -> None:
    path = pictures / "made.toml"
    text = manifest(CASES[name], tiny(CASES[name].checkpoint), dtype, items, denoise='placement = "PLACE"')
    path.write_text(text.replace("PLACE", "stream"))
    events = run_stages(path)
    streamed = made(path)
    (pictures / "runs").rename(pictures / "streamed")
    path.write_text(text.replace("PLACE", "resident"))
    run_stages(path)

    read = [event.streamed["read"] for event in events if isinstance(event, Finished) and event.streamed]
    assert len(read) == 1
    steps = [event.item for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert {*steps[:3]} == {"a", "b", "c"}  # the first of each, before the second of any
    resident = made(path)
    assert streamed.keys() == resident.keys() == {"a", "b", "c"}
    for item, tensors in resident.items():
        assert all(map(torch.equal, streamed[item], tensors)), item
