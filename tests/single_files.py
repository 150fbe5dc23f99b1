"""Single files of weights in the layouts of other programs, made of components in diffusers' layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Weights = dict[str, torch.Tensor]
PREFIX = "model.diffusion_model."
MADE = {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16"}
"""Types that the library can quantise to; of the others random blocks are made."""
SCALES_AT = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}
"""Where the float16 scales are in a block of a type; in the others it is the first number."""


def weights_of(folder: Path) -> Weights:
    """All weights of a component in diffusers' layout."""
    found: Weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def write(path: Path, weights: Mapping[str, torch.Tensor]) -> Path:
    save_file({name: weight.contiguous().clone() for name, weight in weights.items()}, path)
    return path


def write_gguf(path: Path, weights: Mapping[str, torch.Tensor], kind: str) -> Path:
    """A GGUF file; matrices of layers whose rows are whole blocks are quantised, and all else is float32."""
    quantisation = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantisation]
    writer = gguf.GGUFWriter(str(path), "flux")
    for n, (name, weight) in enumerate(weights.items()):
        numbers = weight.float().numpy()
        if not is_layer(name, weight) or weight.shape[1] % block:
            writer.add_tensor(name, numbers)
        elif kind in MADE:
            writer.add_tensor(name, gguf.quants.quantize(numbers, quantisation), raw_dtype=quantisation)
        else:
            data = _blocks(n, weight.shape[0], weight.shape[1] // block, size, SCALES_AT.get(kind, (0,)))
            writer.add_tensor(name, data, raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def is_layer(name: str, weight: torch.Tensor) -> bool:
    """Whether it is the matrix of a linear layer."""
    return weight.ndim == 2 and name.endswith(".weight") and "norm_" not in name


def _blocks(seed: int, rows: int, blocks: int, size: int, scales: tuple[int, ...]) -> NDArray[np.uint8]:
    """Random blocks of a type, with small scales."""
    made = np.random.RandomState(seed).randint(0, 256, (rows, blocks, size), dtype=np.uint8)
    for at in scales:
        made[:, :, at : at + 2] = np.frombuffer(np.float16(0.002).tobytes(), np.uint8)
    return made.reshape(rows, blocks * size)


def scaled_fp8(weights: Weights, name: str = "scale_weight", *, rows: bool = False) -> Weights:
    """Matrices as fp8 with a scale beside each, one number or one for each row, as ComfyUI writes them."""
    made: Weights = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    for key, weight in weights.items():
        if not is_layer(key, weight):
            made[key] = weight.clone()
            continue
        top = weight.float().abs()
        scale = (top.amax(1, keepdim=True) if rows else top.amax()) / 448
        made[key] = (weight.float() / scale).to(torch.float8_e4m3fn)
        made[key.removesuffix("weight") + name] = scale.float().reshape(-1) if rows else scale.float()
    return made


def products(scaled: Weights, name: str = "scale_weight") -> Weights:
    """The weights that fp8 weights with scales stand for, in float32."""
    made: Weights = {}
    for key, weight in scaled.items():
        scale = scaled.get(f"{key.removesuffix('weight')}{name}")
        if key != "scaled_fp8" and not key.endswith(f".{name}"):
            made[key] = weight if scale is None else weight.float() * scale.reshape(-1, 1)
    return made


def as_zimage_original(weights: Weights) -> Weights:
    """The names of Z-Image's authors, who have queries, keys and values in one matrix."""
    renames = {
        "all_final_layer.2-1.": "final_layer.",
        "all_x_embedder.2-1.": "x_embedder.",
        ".attention.to_out.0.": ".attention.out.",
        ".attention.norm_k.": ".attention.k_norm.",
        ".attention.norm_q.": ".attention.q_norm.",
    }
    made: Weights = {}
    fused: dict[str, dict[str, torch.Tensor]] = {}
    for key, weight in weights.items():
        name = key
        for new, old in renames.items():
            name = name.replace(new, old)
        if ".attention.to_" in name:
            layer, _, part = name.removesuffix(".weight").rpartition(".to_")
            fused.setdefault(f"{layer}.qkv.weight", {})[part] = weight
        else:
            made[PREFIX + name] = weight
    return made | {PREFIX + name: torch.cat([part[one] for one in "qkv"]) for name, part in fused.items()}
