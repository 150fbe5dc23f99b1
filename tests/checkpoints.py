"""Random FLUX checkpoints of any size in the layout that FLUX.1 is published in.

CLIP's weights carry the old prefix ``text_model.``, T5 comes in shards without its tied embedding, the
transformer in shards with an index.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import runner_flux
import torch
from safetensors.torch import load_file, save_file

DEMO = Path(runner_flux.__file__).parent / "demo"

DEV = {
    "use_dynamic_shifting": True,
    "shift": 3.0,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
SCHNELL = {"use_dynamic_shifting": False, "shift": 1.0}


def make_flux(
    folder: Path,
    *,
    seed: int = 0,
    dev: bool = True,
    width: int = 64,
    layers: tuple[int, int] = (2, 3),
    text: tuple[int, int] = (32, 48),
    vae_channels: tuple[int, ...] = (8, 8, 16, 16),
    shard: str = "400KB",
) -> Path:
    """Write a checkpoint; ``text`` are the widths of CLIP and T5, ``layers`` double and single blocks."""
    # here, since it takes seconds, and most that import this module make no checkpoint
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    clip_width, t5_width = text
    for tokenizer in ("tokenizer", "tokenizer_2"):
        shutil.copytree(DEMO / tokenizer, folder / tokenizer)
    _write_clip(folder / "text_encoder", clip_width)
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=154,
            d_model=t5_width,
            d_ff=min(2 * t5_width, 1024),
            d_kv=16,
            num_heads=3,
            num_layers=2,
            feed_forward_proj="gated-gelu",
        )
    )
    t5.to(torch.bfloat16).save_pretrained(folder / "text_encoder_2", max_shard_size="40KB")
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=layers[0],
        num_single_layers=layers[1],
        attention_head_dim=32,
        num_attention_heads=width // 32,
        joint_attention_dim=t5_width,
        pooled_projection_dim=clip_width,
        guidance_embeds=dev,
        axes_dims_rope=(8, 12, 12),
    )
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer", max_shard_size=shard)
    vae = AutoencoderKL(
        block_out_channels=vae_channels,
        down_block_types=("DownEncoderBlock2D",) * len(vae_channels),
        up_block_types=("UpDecoderBlock2D",) * len(vae_channels),
        latent_channels=16,
        norm_num_groups=4,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(**(DEV if dev else SCHNELL)).save_pretrained(folder / "scheduler")
    shutil.copy(DEMO / "model_index.json", folder)
    return folder


def _write_clip(folder: Path, width: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=801,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=799,
        eos_token_id=800,
        pad_token_id=800,
    )
    CLIPTextModel(config).to(torch.bfloat16).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    old = {name if name.startswith("text_model.") else f"text_model.{name}": w for name, w in weights.items()}
    save_file({name: w.clone() for name, w in old.items()}, folder / "model.safetensors", {"format": "pt"})


def weight_names(folder: Path) -> list[str]:
    """Names of the tensors in a component's files."""
    names: list[str] = []
    for index in folder.glob("*.index.json"):
        weights: dict[str, Any] = json.loads(index.read_text())["weight_map"]
        return list(weights)
    for file in folder.glob("*.safetensors"):
        names += load_file(file)
    return names
