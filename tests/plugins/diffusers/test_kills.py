"""A run that is killed in the middle of its loop goes on from its last saved step, to the same numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil
import pytest
import torch
from pipeline_cases import CASES, manifest, reference, write_pictures
from stages_here import made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Project

STEPS = 60  # so many that it is killed long before the last


@pytest.mark.parametrize(("name", "dtype"), [("sdxl_inpaint", "float32"), ("wan21", "bfloat16")])
def test_it_is_resumed(project: Project, tiny: Callable[[str], Path], name: str, dtype: str) -> None:
    case = CASES[name].but(num_inference_steps=STEPS)
    text = manifest(case, tiny(case.checkpoint), dtype) + "[run]\ncheckpoint_every = 1\n"
    path = project.write("made.toml", text)
    write_pictures(project.folder)
    with project.start("run", "made.toml", "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["stage"] == "denoise" and event["step"] >= 4:
                break
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for worker in workers:
            worker.kill()

    outcome = project.runner("run", "made.toml", "--json")

    assert outcome.code == 0, outcome
    (resumed,) = outcome.of("resumed")
    assert 3 <= resumed["step"] < resumed["steps"]
    (result,) = made(path).values()
    expected = reference(case, tiny(case.checkpoint), project.folder, getattr(torch, dtype))
    assert all(map(torch.equal, result, expected))
