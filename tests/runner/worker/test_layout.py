"""What the tensors of a file become in a class, found in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from single_files import as_stable_diffusion_xl, weights_of, with_text_model, write
from tiny_models import checkpoint

from runner.errors import ModelError
from runner.files.header import read_header
from runner.worker.layout import layout_of

if TYPE_CHECKING:
    from pathlib import Path

CLIP = "transformers:CLIPTextModel"


def laid_out(file: Path, cls: str, folder: Path) -> dict[str, Any]:
    """The layout of a file with the config in a folder."""
    tensors = {n: [i.dtype, list(i.shape), [i.start, i.end]] for n, i in read_header(file).tensors.items()}
    return layout_of(
        {"class": cls, "config": json.loads((folder / "config.json").read_text()), "tensors": tensors}
    )


def test_a_text_encoder_of_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint("sdxl", tmp_path) / "text_encoder"
    weights = as_stable_diffusion_xl(folder.parent)
    file = write(tmp_path / "whole.safetensors", weights)
    found = laid_out(file, CLIP, folder)
    assert {with_text_model(n) for n in found["tensors"]} == {*map(with_text_model, weights_of(folder))}
    assert not found["computed"]
    odd = {"conditioner.embedders.0.transformer.text_model.odd.weight": torch.zeros(4)}
    write(file, weights | odd)
    with pytest.raises(ModelError, match=r"does not take \(odd.weight|does not take \(text_model.odd.weight"):
        laid_out(file, CLIP, folder)


def test_a_text_encoder_with_the_names_of_transformers(tmp_path: Path) -> None:
    folder = checkpoint("flux", tmp_path) / "text_encoder"
    weights = {with_text_model(name): weight for name, weight in weights_of(folder).items()}
    beside = {"logit_scale": torch.tensor(4.6), "text_projection.weight": torch.eye(32)}
    file = write(tmp_path / "clip_l.safetensors", weights | beside)
    assert len(laid_out(file, CLIP, folder)["tensors"]) == len(weights)
    write(file, weights | beside | {"odd.weight": torch.zeros(4)})
    with pytest.raises(ModelError, match=r"does not take \(odd.weight\)"):
        laid_out(file, CLIP, folder)


@pytest.mark.parametrize("has_embeddings", [True, False])
def test_a_text_encoder_of_a_file_with_both_towers(tmp_path: Path, *, has_embeddings: bool) -> None:
    """CLIP as it was published: the towers' layers have the same names, and may have the same shapes."""
    folder = checkpoint("flux", tmp_path) / "text_encoder"
    weights = {with_text_model(name): weight for name, weight in weights_of(folder).items()}
    vision = {n.replace("text_model.", "vision_model."): w for n, w in weights.items() if ".layers." in n}
    if has_embeddings:
        vision["vision_model.embeddings.class_embedding"] = torch.zeros(4)
        vision["visual_projection.weight"] = torch.zeros(4, 4)
    file = write(tmp_path / "clip.safetensors", weights)
    alone = laid_out(file, CLIP, folder)
    for both in (weights | vision, vision | weights):
        write(file, both)
        places = {n: [i.start, i.end] for n, i in read_header(file).tensors.items()}
        found = laid_out(file, CLIP, folder)["tensors"]
        assert found.keys() == alone["tensors"].keys()
        assert all(place == places[with_text_model(name)] for name, (_, _, place) in found.items())
