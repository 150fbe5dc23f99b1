"""Pictures and clips of many pipelines, made in three stages, are equal to the bit to the pipelines' own.

`make families` makes each case in each dtype in both ways; else each is made in one dtype in this process, and
in the other in processes of their own (`make test` has some of these, `make test-long` all).
"""

from __future__ import annotations

import json
import os
from itertools import cycle
from typing import TYPE_CHECKING

import pytest
import torch
from pipeline_cases import CASES, manifest, reference, stage_tables, write_pictures
from safetensors.torch import load_file
from stages_here import made, run_stages

from runner.events import Progress, Resumed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Project

DTYPES = ("float32", "bfloat16")
EACH = [(name, dtype) for name in CASES for dtype in DTYPES]
ONE = list(zip(CASES, cycle(DTYPES), strict=False))
UNLIKE = ("sdxl_inpaint", "klein_edit", "wan22", "ltx091")
"""Cases whose stages load, hand on and draw unlike things."""
OTHER = [one for one in EACH if one not in ONE]
HERE, APART = (EACH, EACH) if os.environ.get("FAMILIES") == "all" else (ONE, OTHER)
SOME = [one for one in APART if one[0] in UNLIKE]


@pytest.mark.parametrize(("name", "dtype"), HERE)
def test_a_case_that_is_interrupted_and_resumed(
    pictures: Path, tiny: Callable[[str], Path], name: str, dtype: str
) -> None:
    case = CASES[name]
    folder = tiny(case.checkpoint)
    path = pictures / "made.toml"
    path.write_text(manifest(case, folder, dtype))

    first = run_stages(path, stop=("denoise", 2))
    rest = run_stages(path)

    (resumed,) = [event for event in rest if isinstance(event, Resumed)]
    steps = [event.step for event in first if isinstance(event, Progress)]
    assert steps[-1] == resumed.step == 2
    (result,) = made(path).values()
    assert equal(result, reference(case, folder, pictures, getattr(torch, dtype)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("cases", [SOME, APART], ids=["some", "all"])
def test_cases_in_processes_of_their_own(
    project: Project, tiny: Callable[[str], Path], cases: list[tuple[str, str]]
) -> None:
    """One run of all, so that the libraries are imported once: each stage of a case has its own worker."""
    tables = ['version = 1\nname = "all"\n[budget]\ndevice = "cpu"\nthreads = 1\n[[item]]\nid = "made"\n']
    for name, dtype in cases:
        case = CASES[name]
        tables.append(stage_tables(f"{name}-{dtype}", case, tiny(case.checkpoint), dtype))
    project.write("all.toml", "".join(tables))
    write_pictures(project.folder)

    outcome = project.runner("run", "all.toml", seconds=1500)

    assert outcome.code == 0, outcome
    results = {
        json.loads(path.read_text())["stage"]: load_file(
            path.with_name(path.name.removesuffix(".runner.json"))
        )
        for path in project.folder.glob("runs/all/outputs/*.runner.json")
    }
    for name, dtype in cases:
        case = CASES[name]
        expected = reference(case, tiny(case.checkpoint), project.folder, getattr(torch, dtype))
        assert equal(list(results[f"{name}-{dtype}-decode"].values()), expected), (name, dtype)


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))
