"""Saved states: what is saved is what is found, and what must not be gone on from is refused with a reason."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from runner.api import Bundled
from runner.files import handoff
from runner.worker.checkpoint import CheckpointFile, DiscardedError, snapshot

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a" * 64
HERE = {"threads": "1", "versions": {"torch": "1.0", "numpy": "2.0"}}
CPU = torch.device("cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / f"{KEY}.safetensors"


def file(path: Path, key: str = KEY, **environment: Any) -> CheckpointFile:
    return CheckpointFile(path, key, CPU, {**HERE, **environment})


def test_a_state_comes_back_as_it_was_saved(path: Path) -> None:
    assert file(path).load() is None
    state = {
        "x": torch.rand(3, 5),
        "odd": torch.rand(7)[::2],
        "turned": torch.rand(3, 5).T,
    }  # which copies keep
    file(path).save(3, 9, snapshot(state), 2.5)
    found = file(path).load()
    assert found is not None
    assert (found.saved.step, found.steps, found.seconds) == (3, 9, 2.5)
    assert {name: tensor.tolist() for name, tensor in found.saved.state.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }
    # at torch's own boundaries, as results to the bit require
    assert all(tensor.data_ptr() % 64 == 0 for tensor in found.saved.state.values())


def test_a_state_of_one_tensor_comes_back_as_one(path: Path) -> None:
    file(path).save(1, 2, snapshot(torch.ones(2)), 1.0)
    found = file(path).load()
    assert found is not None
    assert torch.equal(found.saved.state, torch.ones(2))
    file(path).save(1, 2, snapshot({"x": torch.ones(2)}), 1.0)
    found = file(path).load()
    assert found is not None
    assert list(found.saved.state) == ["x"]


def test_a_bundle_comes_back_with_its_values(path: Path) -> None:
    state = Bundled({"latents": torch.ones(2), "state": torch.zeros(1)}, {"done": [1, None, "x"]})
    file(path).save(1, 2, snapshot(state), 1.0)
    found = file(path).load()
    assert found is not None
    assert isinstance(found.saved.state, Bundled)
    assert found.saved.state.values == {"done": [1, None, "x"]}
    assert found.saved.state.tensors.keys() == {"latents", "state"}
    file(path).save(1, 2, snapshot(Bundled({"state": torch.ones(2)})), 1.0)
    found = file(path).load()
    assert found is not None
    assert found.saved.state == Bundled(found.saved.state.tensors, None)


def test_random_generators_go_on_from_where_they_were(path: Path) -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    file(path).save(1, 2, snapshot({"x": torch.ones(1)}), 1.0)
    first = drawn()
    assert not set(first) & set(drawn())
    file(path).load()
    assert drawn() == first


def test_a_snapshot_is_a_copy() -> None:
    mine = {"x": torch.ones(2)}
    taken = snapshot(mine)
    mine["x"].zero_()
    assert torch.equal(taken.tensors["x"], torch.ones(2))
    for wrong in ([torch.ones(1)], {"x": 1}, 3):
        with pytest.raises(TypeError, match="takes a tensor"):
            snapshot(wrong)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"threads": "2"}, "threads 1, and this is 2"),
        ({"versions": {"torch": "1.1", "numpy": "2.0"}}, "torch 1.0, and this is 1.1"),
        ({"versions": {"torch": "1.0", "numpy": "2.0", "new": "3"}}, "new None, and this is 3"),
        ({"device": "cpu"}, "device None, and this is cpu"),
    ],
)
def test_a_state_from_elsewhere_is_refused(path: Path, changed: dict[str, Any], words: str) -> None:
    file(path).save(1, 2, snapshot({"x": torch.ones(1)}), 1.0)
    with pytest.raises(DiscardedError, match=words):
        file(path, **changed).load()


def test_a_state_of_an_earlier_version_is_read(path: Path) -> None:
    file(path).save(1, 2, snapshot({"x": torch.ones(1)}), 1.0)
    found = handoff.read(path, KEY)
    names = ("key", "step", "steps", "seconds", "circumstances")
    path.write_bytes(handoff.seal(save(load(found.data)), {n: found.header.metadata[n] for n in names}))
    assert file(path).load() is not None
    with pytest.raises(DiscardedError, match="threads 1, and this is 2"):
        file(path, threads="2").load()


def test_another_keys_state_is_refused(path: Path) -> None:
    file(path).save(1, 2, snapshot({"x": torch.ones(1)}), 1.0)
    with pytest.raises(DiscardedError, match="another key"):
        file(path, "b" * 64).load()


def test_what_is_sealed_and_yet_no_state_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(handoff.seal(save({"x": torch.ones(1)}), {"key": KEY}))
    with pytest.raises(DiscardedError, match="it is not a checkpoint: KeyError"):
        file(path).load()


def test_removing_is_for_what_may_not_be_there(path: Path) -> None:
    file(path).remove()
    file(path).save(1, 2, snapshot({"x": torch.ones(1)}), 1.0)
    file(path).remove()
    assert not path.exists()
