"""Components written anew into a folder: shard by shard, going on where it was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import weight_forms as forms
from safetensors.torch import load_file

from runner.api import Component
from runner.model.files import open_component
from runner.model.shapes import CONVERTED
from runner.placement import prepared_folder
from runner.placement.prepared_folder import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from runner.model.files import ComponentFiles


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ComponentFiles:
    folder = forms.make(tmp_path_factory.mktemp("form"), "plain")
    return open_component(folder, Component("transformer", "diffusers:FluxTransformer2DModel", "plain"))


class StoppedError(Exception):
    """Raised after some shards."""


def test_an_interrupted_one_goes_on_after_its_last_shard(
    plain: ComponentFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FluxTransformer2DModel

    monkeypatch.setattr(prepared_folder, "SHARD", 1 << 20)
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        write_folder(FluxTransformer2DModel, plain, "int8", torch.bfloat16, tmp_path, stop)
    assert not (tmp_path / "config.json").exists()
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(first) == 2

    write_folder(FluxTransformer2DModel, plain, "int8", torch.bfloat16, tmp_path, lambda *_: None)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in first} == first
    whole = FluxTransformer2DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    theirs = forms._quantised(plain.folder / "plain", "int8")
    assert torch.equal(forms.call(whole, 0), forms.call(theirs, 0))
    done, total = seen[-1]
    assert 0 < done < total


def test_a_converted_one_has_the_same_weights(plain: ComponentFiles, tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    write_folder(FluxTransformer2DModel, plain, CONVERTED, torch.float32, tmp_path, lambda *_: None)
    written: dict[str, torch.Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        written |= load_file(file)
    original = FluxTransformer2DModel.from_pretrained(plain.folder / "plain", torch_dtype=torch.float32)
    assert written.keys() == original.state_dict().keys()
    assert all(torch.equal(written[name], weight) for name, weight in original.state_dict().items())
