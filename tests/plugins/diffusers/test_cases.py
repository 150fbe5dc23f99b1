"""Pictures and clips of many pipelines, made in three stages and resumed, are equal to the pipelines' own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pipeline_cases import CASES, SLOW, manifest, reference
from stages_here import made, run_stages

from runner.events import Progress, Resumed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in SLOW])
def test_a_case_interrupted_in_its_middle_is_equal_to_the_pipeline(
    pictures: Path, tiny: Callable[[str], Path], name: str, dtype: str
) -> None:
    case = CASES[name]
    folder = tiny(case.checkpoint)
    expected = reference(case, folder, pictures, getattr(torch, dtype))
    path = pictures / "made.toml"
    path.write_text(manifest(case, folder, dtype))

    first = run_stages(path, stop=("denoise", 2))
    rest = run_stages(path)

    (resumed,) = [event for event in rest if isinstance(event, Resumed)]
    steps = [event.step for event in first if isinstance(event, Progress)]
    assert steps[-1] == resumed.step == 2
    (result,) = made(path).values()
    assert equal(result, expected)


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))
