"""Whatever the group, its order, its sizes and steps, and whichever blocks stream: the same bits."""

# mypy: disable-error-code="misc"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from towers import HIDDEN, as_resident, as_streamed, make, numbers, together

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = st.integers(0, len(HIDDEN) - 1)
CALL = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "rows": st.integers(1, 6),
        "steps": st.lists(st.one_of(st.none(), st.lists(BLOCKS, max_size=7)), max_size=4),
        "draws": st.booleans(),
    }
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[torch.dtype, Path]:
    folder = tmp_path_factory.mktemp("towers")
    return {
        torch.float32: make(folder / "single", shards=2, pad=1),
        torch.bfloat16: make(folder / "half", dtype=torch.bfloat16, shards=3, pad=5),
    }


def run(tower: Any, call: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(call["seed"])
    x = numbers(call["seed"], call["rows"], dtype)
    for path in call["steps"]:
        x = tower(x, path)
        if call["draws"]:
            x = x + torch.randn(x.shape, dtype=dtype)
    return x


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(CALL, min_size=1, max_size=6),
    blocks=st.sets(BLOCKS, min_size=1),
    stored=st.sampled_from([torch.float32, torch.bfloat16]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_lockstep_computes_what_calls_one_by_one_do(
    folders: dict[torch.dtype, Path],
    calls: list[dict[str, Any]],
    blocks: set[int],
    stored: torch.dtype,
    dtype: torch.dtype,
    data: st.DataObject,
) -> None:
    resident = as_resident(folders[stored], dtype)
    expected = [run(resident, call, dtype) for call in calls]
    tower, stream = as_streamed(folders[stored], [f"blocks.{block}" for block in blocks], dtype)
    order = data.draw(st.permutations(range(len(calls))))
    first = data.draw(st.integers(0, len(calls)))
    for group in (order[:first], order[first:]):
        results = together(stream, [lambda n=n: run(tower, calls[n], dtype) for n in group])
        assert all(torch.equal(result, expected[n]) for result, n in zip(results, group, strict=True))
