"""``resident``: weights of our own, at boundaries where results do not depend on the file's layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import DEMO
from component_loading import place
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextModel, T5EncoderModel

from runner.errors import ModelError


def mapped_ranges() -> list[tuple[int, int]]:
    """Address ranges of this process that map safetensors files."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors"):
            start, end = line.split()[0].split("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("cls", "folder"),
    [(AutoencoderKL, "vae"), (T5EncoderModel, "text_encoder_2"), (CLIPTextModel, "text_encoder")],
)
def test_weights_are_read_not_mapped_and_aligned(cls: type, folder: str, dtype: torch.dtype) -> None:
    module = place("resident", cls, DEMO / folder, dtype)
    ranges = mapped_ranges()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        assert tensor.data_ptr() % 64 == 0, name
        assert not any(start <= tensor.data_ptr() < end for start, end in ranges), name
        assert not tensor.requires_grad
    assert next(module.parameters()).dtype == dtype
    assert not module.training


def test_tied_weights_stay_tied() -> None:
    module = place("resident", T5EncoderModel, DEMO / "text_encoder_2", torch.float32)
    assert module.shared.weight.data_ptr() == module.encoder.embed_tokens.weight.data_ptr()


def test_what_has_no_weights_is_just_loaded() -> None:
    cls = FlowMatchEulerDiscreteScheduler
    scheduler = place("resident", cls, DEMO / "scheduler", torch.float32)
    assert scheduler.config.use_dynamic_shifting is True


def test_weights_that_no_file_has_are_reported_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for cls, folder, file in (
        (CLIPTextModel, "text_encoder", "model.safetensors"),
        (AutoencoderKL, "vae", "diffusion_pytorch_model.safetensors"),
    ):
        copy = shutil.copytree(DEMO / folder, tmp_path / folder)
        weights = load_file(copy / file)
        save_file(dict(list(weights.items())[1:]), copy / file, {"format": "pt"})
        with pytest.raises(ModelError, match="lack a weight of"):
            place("resident", cls, copy, torch.float32)
