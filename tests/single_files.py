"""Single files of weights in the layouts of other programs, made of components in diffusers' layout."""

from __future__ import annotations

import json
import re
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


def unaligned(path: Path) -> Path:
    """The file with a header of odd length, as versions of safetensors before 0.3 wrote it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    more = 1 + length % 2
    header = data[8 : 8 + length] + b" " * more
    path.write_bytes((length + more).to_bytes(8, "little") + header + data[8 + length :])
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


def as_stable_diffusion(folder: Path) -> Weights:
    """A whole checkpoint of Stable Diffusion 1, with its authors' names and what else such files hold."""
    made = _unet_and_vae(folder) | {"alphas_cumprod": torch.ones(3)}
    return made | _clip(folder / "text_encoder", "cond_stage_model.transformer.")


def as_stable_diffusion_xl(folder: Path) -> Weights:
    """The same of Stable Diffusion XL, whose second text encoder has the names of OpenCLIP."""
    made = _unet_and_vae(folder) | {"denoiser.sigmas": torch.ones(3)}
    made |= _clip(folder / "text_encoder", "conditioner.embedders.0.transformer.")
    fused: dict[str, dict[str, torch.Tensor]] = {}
    prefix = "conditioner.embedders.1.model."
    for name, weight in weights_of(folder / "text_encoder_2").items():
        inner = name.removeprefix("text_model.")
        for new, old in OPEN_CLIP.items():
            inner = inner.replace(new, old)
        if match := re.search(r"\.([qkv])_proj\.", inner):
            fused.setdefault(inner.replace(match[0], ".in_proj_"), {})[match[1]] = weight
        else:
            made[prefix + inner] = weight.T if inner == "text_projection" else weight
    made |= {prefix + name: torch.cat([part[one] for one in "qkv"]) for name, part in fused.items()}
    return made | {f"{prefix}logit_scale": torch.tensor(4.6)}


def _unet_and_vae(folder: Path) -> Weights:
    unet = weights_of(folder / "unet")
    layers = json.loads((folder / "unet/config.json").read_text())["layers_per_block"]
    attending = {
        name.split(".")[1] for name in unet if name.startswith("up_blocks.") and ".attentions." in name
    }
    made = {PREFIX + _unet_name(name, layers, attending): weight for name, weight in unet.items()}
    vae = weights_of(folder / "vae")
    blocks = len({name.split(".")[2] for name in vae if name.startswith("decoder.up_blocks.")})
    for name, weight in vae.items():
        square = ".attentions." in name and ".group_norm." not in name and name.endswith(".weight")
        value = weight[:, :, None, None] if square else weight
        made[f"first_stage_model.{_vae_name(name, blocks)}"] = value
    return made


def _clip(folder: Path, prefix: str) -> Weights:
    """CLIP with its positions, as older versions of its library saved it."""
    made = {f"{prefix}{with_text_model(name)}": weight for name, weight in weights_of(folder).items()}
    return made | {f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


def with_text_model(name: str) -> str:
    """A name of CLIP's text encoder as files have it, whatever the library's version."""
    return name if name.startswith("text_") else f"text_model.{name}"


OPEN_CLIP = {
    "text_projection.weight": "text_projection",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    "self_attn": "attn",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE = {
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "downsamplers.0.conv": "downsample.conv",
    "upsamplers.0.conv": "upsample.conv",
    "resnets": "block",
}


def _unet_name(name: str, layers: int, attending: set[str]) -> str:
    owner, _, last = name.rpartition(".")
    if owner in UNET:
        return f"{UNET[owner]}.{last}"
    where, *rest = name.split(".", 3)
    if where == "mid_block":
        kind, number, inner = rest[0], int(rest[1]), rest[2]
        place = f"middle_block.{1 if kind == 'attentions' else 2 * number}"
    else:
        block, kind, inner = int(rest[0]), rest[1], rest[2]
        position, _, inner = inner.partition(".")
        at = (layers + 1) * block + int(position)
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{inner.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{at + layers}.{2 if str(block) in attending else 1}.{inner}"
        side, first = ("input_blocks", 1) if where == "down_blocks" else ("output_blocks", 0)
        place = f"{side}.{at + first}.{1 if kind == 'attentions' else 0}"
    for new, old in RESNET.items() if kind == "resnets" else ():
        inner = inner.replace(new, old)
    return f"{place}.{inner}"


def _vae_name(name: str, blocks: int) -> str:
    for new, old in VAE.items():
        name = name.replace(new, old)
    for number in range(blocks):
        name = name.replace(f"decoder.up_blocks.{number}.", f"decoder.up.{blocks - 1 - number}.")
        name = name.replace(f"encoder.down_blocks.{number}.", f"encoder.down.{number}.")
    return name
