"""Single files of weights in the layouts of other programs, made of components in diffusers' layout."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Weights = dict[str, torch.Tensor]
MADE = {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16"}
"""Types that the library can quantise to; of the others random blocks are made."""


def weights_of(folder: Path) -> Weights:
    """All weights of a component in diffusers' layout."""
    found: Weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def write_gguf(path: Path, weights: Mapping[str, torch.Tensor], kind: str) -> Path:
    """A GGUF file; matrices whose rows are whole blocks are quantised, and all else is float32."""
    quantisation = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantisation]
    writer = gguf.GGUFWriter(str(path), "flux")
    for n, (name, weight) in enumerate(weights.items()):
        numbers = weight.float().numpy()
        matrix = weight.ndim == 2 and name.endswith(".weight") and "norm_" not in name and "embed" not in name
        if matrix and weight.shape[1] % block == 0:
            if kind in MADE:
                data = gguf.quants.quantize(numbers, quantisation)
            else:
                data = _blocks(n, weight.shape[0], weight.shape[1] // block, size, kind)
            writer.add_tensor(name, data, raw_dtype=quantisation)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _blocks(
    seed: int, rows: int, blocks: int, size: int, kind: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Random blocks of a type, whose scales are small numbers."""
    made = np.random.RandomState(seed).randint(0, 256, (rows, blocks, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.002).tobytes(), np.uint8)
    for at in {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82), "Q6_K": (208,), "Q3_K": (108,)}.get(
        kind, (0,)
    ):
        made[:, :, at : at + 2] = scale
    return made.reshape(rows, blocks * size)


def as_sd3_originals(weights: Weights) -> Weights:
    """The names that Stability AI gave SD3's transformer, with its fused projections."""
    renamed: Weights = {}
    fused: dict[str, list[torch.Tensor]] = {}
    for name, weight in sorted(weights.items(), key=_in_order):
        new, part = name, None
        for pattern, replacement in SD3:
            new = re.sub(pattern, replacement, new)
        if match := re.fullmatch(r"(.+attn2?\.)(qkv)\d(\..+)", new):
            new = f"model.diffusion_model.{match[1]}qkv{match[3]}"
            fused.setdefault(new, []).append(weight)
            continue
        del part
        swapped = "context_block.adaLN_modulation" in new and _is_last(name, weights)
        if swapped or new.startswith("final_layer.adaLN"):
            scale, shift = weight.chunk(2)
            weight = torch.cat([shift, scale])
        renamed[f"model.diffusion_model.{new}"] = weight.contiguous()
    return renamed | {name: torch.cat(parts) for name, parts in fused.items()}


def _in_order(named: tuple[str, torch.Tensor]) -> str:
    return (
        named[0]
        .replace("to_q", "1")
        .replace("to_k", "2")
        .replace("to_v", "3")
        .replace("add_q", "1")
        .replace("add_k", "2")
        .replace("add_v", "3")
    )


def _is_last(name: str, weights: Weights) -> bool:
    numbers = [int(n.split(".")[1]) for n in weights if n.startswith("transformer_blocks.")]
    return int(name.split(".")[1]) == max(numbers)


SD3: tuple[tuple[str, str], ...] = ()


def scaled_fp8(weights: Weights, name: str = "scale_weight", *, rows: bool = False) -> Weights:
    """Matrices as fp8 with a scale beside each, as ComfyUI writes them."""
    made: Weights = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    for key, weight in weights.items():
        if weight.ndim != 2 or not key.endswith(".weight"):
            made[key] = weight.clone()
            continue
        top = weight.float().abs()
        scale = (top.amax(1) if rows else top.amax()) / 448
        made[key] = (weight.float() / (scale[:, None] if rows else scale)).to(torch.float8_e4m3fn)
        made[key.removesuffix("weight") + name] = scale.float().clone()
    return made


def write(path: Path, weights: Weights) -> Path:
    save_file({name: weight.contiguous().clone() for name, weight in weights.items()}, path)
    return path
