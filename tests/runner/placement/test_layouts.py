"""Components whose folders hold their weights more than once: what was planned is what is loaded."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import DEMO
from component_loading import place, reference
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from towers import Tower
from transformers import CLIPTextModel, T5EncoderModel

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = [(AutoencoderKL, "vae"), (T5EncoderModel, "text_encoder_2"), (CLIPTextModel, "text_encoder")]


def copied(folder: str, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a component of the demo model, and its weight file."""
    copy = shutil.copytree(DEMO / folder, tmp_path / folder)
    (weights,) = copy.glob("*.safetensors")
    return copy, weights


def halved(weights: Path, target: Path) -> None:
    """Write the weights in float16, all a quarter smaller: another layout of the same would not show."""
    loaded = {name: w.half() * 0.75 if w.is_floating_point() else w for name, w in load_file(weights).items()}
    save_file(loaded, target, {"format": "pt"})


def sharded(weights: Path, target: Path, index: str) -> None:
    """Write the weights in two shards beside ``target``, and the index that names them."""
    loaded = load_file(weights)
    stem = target.name.removesuffix(".safetensors")
    shards = [f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    owner = {name: shards[n % 2] for n, name in enumerate(loaded)}
    for shard in shards:
        part = {name: loaded[name] for name, own in owner.items() if own == shard}
        save_file(part, target.with_name(shard), {"format": "pt"})
    total = sum(w.numel() * w.element_size() for w in loaded.values())
    table = {"metadata": {"total_size": total}, "weight_map": owner}
    target.with_name(index).write_text(json.dumps(table))


def same(loaded: torch.nn.Module, reference: torch.nn.Module) -> bool:
    pairs = zip(loaded.parameters(), reference.parameters(), strict=True)
    return all(a.shape == b.shape and (a.is_meta or torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize(("cls", "folder"), CLASSES)
@pytest.mark.parametrize("form", ["whole", "shards"])
def test_a_variant_is_loaded_as_its_library_does(cls: Any, folder: str, form: str, tmp_path: Path) -> None:
    copy, weights = copied(folder, tmp_path)
    variant = copy / f"{weights.stem}.fp16.safetensors"
    halved(weights, variant)
    if form == "shards":
        sharded(variant, variant, f"{weights.stem}.safetensors.index.fp16.json")
        variant.unlink()
    theirs = reference(cls, copy, torch.float32, variant="fp16", use_safetensors=True)
    ours = place("resident", cls, copy, torch.float32, variant="fp16")
    assert same(ours, theirs)
    plain = place("resident", cls, copy, torch.float32)
    assert not same(ours, plain)
    assert same(plain, place("resident", cls, DEMO / folder, torch.float32))


@pytest.mark.parametrize(("cls", "folder"), CLASSES)
def test_the_index_is_followed_where_there_is_one_whole_file_too(
    cls: Any, folder: str, tmp_path: Path
) -> None:
    copy, weights = copied(folder, tmp_path)
    sharded(weights, weights, f"{weights.name}.index.json")
    halved(weights, weights)
    reference = place("resident", cls, DEMO / folder, torch.bfloat16)
    assert same(place("resident", cls, copy, torch.bfloat16), reference)
    assert same(place("stream", cls, copy, torch.bfloat16), reference)


def test_a_plain_module_is_loaded_from_the_files_that_were_chosen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = Tower()
    (tmp_path / "net").mkdir()
    state = {name: w.contiguous() for name, w in tower.state_dict().items()}
    save_file(state, tmp_path / "net/model.safetensors")
    save_file({name: w + 1 for name, w in state.items()}, tmp_path / "net/other.safetensors")
    save_file({name: w + 2 for name, w in state.items()}, tmp_path / "net/model.fp16.safetensors")
    assert same(place("resident", Tower, tmp_path / "net", torch.float32), tower)
    variant = place("resident", Tower, tmp_path / "net", torch.float32, variant="fp16")
    assert torch.equal(variant.first.weight, tower.first.weight + 2)
