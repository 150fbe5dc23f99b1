"""Adapters (LoRA) for checkpoints in a folder, of random numbers, with the names of several trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from runner.files.header import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ATTENTION = ("attn1.to_q", "attn1.to_v", "attn2.to_k", "attn2.to_out.0", "ff.net.2")
FLUX = ("attn.to_q", "attn.to_out.0", "proj_mlp", "ff.net.2")
TEXT = tuple(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
XL: Mapping[str, Sequence[str]] = {"unet": ATTENTION, "text_encoder": TEXT, "text_encoder_2": TEXT}
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


def layers(model: Path, component: str, ends: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the layers of a component whose names end so."""
    for file in sorted((model / component).glob("*.safetensors")):
        for name, info in read_header(file).tensors.items():
            layer = name.removesuffix(".weight")
            if layer != name and layer.endswith(tuple(ends)) and len(info.shape) == 2:
                yield layer, info.shape


def write_lora(
    path: Path,
    model: Path,
    components: Mapping[str, Sequence[str]],
    *,
    rank: int = 4,
    seed: int = 0,
    kohya: bool = False,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter for layers of ``components``, by the ends of their names.

    With ``kohya``, names and alphas are those of kohya's trainer for Stable Diffusion.
    """
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for component, ends in components.items():
        for layer, (outputs, inputs) in layers(model, component, ends):
            down = torch.randn(rank, inputs, generator=random).mul(0.2).to(dtype)
            up = torch.randn(outputs, rank, generator=random).mul(0.2).to(dtype)
            if kohya:
                inner = layer if component == "unet" else f"text_model.{layer.removeprefix('text_model.')}"
                name = KOHYA[component] + inner.replace(".", "_")
                tensors[f"{name}.alpha"] = torch.tensor(rank / 2)
                tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
            else:
                tensors[f"{component}.{layer}.lora_A.weight"] = down
                tensors[f"{component}.{layer}.lora_B.weight"] = up
    save_file(tensors, path, {"format": "pt", **(metadata or {})})
    return path


def write_kohya_flux(path: Path, model: Path, *, rank: int = 6, seed: int = 0) -> Path:
    """Write an adapter with the names of kohya's trainer for FLUX, where one tensor is for q, k and v."""
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    blocks = [layer for layer, _ in layers(model, "transformer", ("attn.to_q",)) if "single" not in layer]
    width = next(shape[0] for _, shape in layers(model, "transformer", ("attn.to_q",)))
    for n in range(len(blocks)):
        for name, outputs in (
            ("img_attn_qkv", 3 * width),
            ("img_attn_proj", width),
            ("txt_mlp_0", 4 * width),
        ):
            stem = f"lora_unet_double_blocks_{n}_{name}"
            tensors[f"{stem}.lora_down.weight"] = (
                torch.randn(rank, width, generator=random).mul(0.2).bfloat16()
            )
            tensors[f"{stem}.lora_up.weight"] = (
                torch.randn(outputs, rank, generator=random).mul(0.2).bfloat16()
            )
            tensors[f"{stem}.alpha"] = torch.tensor(rank / 2)
    save_file(tensors, path, {"format": "pt"})
    return path
