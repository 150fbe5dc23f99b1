"""Tiny VAEs with random weights, one of each class of diffusers that decodes pictures or clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from runner_diffusers.tiling import granularity

DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
MEAN = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
KL = {
    "block_out_channels": [8, 8],
    "down_block_types": [DOWN] * 2,
    "up_block_types": [UP] * 2,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
LTX = {
    "latent_channels": 8, "block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8], "layers_per_block": [1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1], "spatio_temporal_scaling": [True, True], "decoder_spatio_temporal_scaling": [True, True],
    "decoder_inject_noise": [False] * 3, "upsample_residual": [False, False], "upsample_factor": [1, 1], "patch_size": 2, "patch_size_t": 1,
}  # fmt: skip
WAN = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, **MEAN}


@dataclass(frozen=True)
class Tiny:
    config: dict[str, Any]
    channels: int
    ratio: int
    """Pixels for each number of the latents, in height and width."""
    frames: int | None = None
    """Frames for each of the latents' after the first; None for VAEs of pictures."""


VAES = {
    "AutoencoderKL": Tiny({**KL, "latent_channels": 4, "sample_size": 32}, 4, 2),
    "AutoencoderKLFlux2": Tiny({**KL, "latent_channels": 4, "sample_size": 32}, 4, 2),
    "AutoencoderKLKVAE": Tiny({"channels": 32, "ch_mult": [1, 1], "num_enc_blocks": 1, "num_dec_blocks": 1, "z_channels": 4, "sample_size": 32}, 4, 2),
    "AutoencoderTiny": Tiny({"encoder_block_out_channels": [8] * 4, "decoder_block_out_channels": [8] * 4, "num_encoder_blocks": [1] * 4, "num_decoder_blocks": [1] * 4}, 4, 8),
    "AutoencoderDC": Tiny({"latent_channels": 4, "attention_head_dim": 4, "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"], "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"], "encoder_block_out_channels": [8, 8, 16], "decoder_block_out_channels": [8, 8, 16], "encoder_qkv_multiscales": [[], [], [5]], "decoder_qkv_multiscales": [[], [], [5]], "encoder_layers_per_block": [1, 1, 1], "decoder_layers_per_block": [1, 1, 1]}, 4, 4),
    "AutoencoderKLQwenImage": Tiny({**WAN, "attn_scales": []}, 4, 8, 4),
    "AutoencoderKLQwenImage21": Tiny({**WAN, "attn_scales": [], "temperal_downsample": [False, False, False], "is_residual": False, "in_channels": 3, "out_channels": 3, "scale_factor_spatial": 8}, 4, 8, 4),
    "AutoencoderKLWan": Tiny(WAN, 4, 8, 4),
    "AutoencoderKLWan 5B": Tiny({**WAN, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16, "is_residual": True, "decoder_base_dim": 4}, 4, 16, 4),
    "AutoencoderKLLTXVideo": Tiny(LTX, 8, 8, 4),
    "AutoencoderKLLTX2Video": Tiny({"latent_channels": 8, "block_out_channels": [8, 16, 32, 64], "decoder_block_out_channels": [8, 16, 32], "layers_per_block": [1] * 5, "decoder_layers_per_block": [1] * 4, "decoder_inject_noise": [False] * 4, "spatial_compression_ratio": 8, "temporal_compression_ratio": 8, "patch_size": 1}, 8, 8, 8),
    "AutoencoderKLCosmos": Tiny({"encoder_block_out_channels": [8, 8, 8, 8], "decode_block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "num_layers": 1, "attention_resolutions": [8], "resolution": 64, **MEAN}, 4, 8, 8),
    "AutoencoderKLMagvit": Tiny({"block_out_channels": [8, 8, 8], "down_block_types": ["SpatialDownBlock3D", "SpatialTemporalDownBlock3D", "SpatialTemporalDownBlock3D"], "up_block_types": ["SpatialUpBlock3D", "SpatialTemporalUpBlock3D", "SpatialTemporalUpBlock3D"], "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4}, 4, 4, 2),
    "AutoencoderKLHunyuanVideo": Tiny({"block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4}, 4, 8, 4),
    "AutoencoderKLHunyuanVideo15": Tiny({"block_out_channels": [16, 16, 16], "latent_channels": 4, "layers_per_block": 1, "spatial_compression_ratio": 4, "temporal_compression_ratio": 4}, 4, 4, 4),
    "AutoencoderKLHunyuanImage": Tiny({"block_out_channels": [32, 64, 64], "latent_channels": 8, "layers_per_block": 1, "spatial_compression_ratio": 4, "sample_size": 32, "in_channels": 3, "out_channels": 3}, 8, 4),
    "AutoencoderKLHunyuanImageRefiner": Tiny({"block_out_channels": [16, 16, 16, 32, 32], "latent_channels": 8, "layers_per_block": 1}, 8, 16, 4),
    "AutoencoderKLCogVideoX": Tiny({"block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_height": 480, "sample_width": 720}, 4, 8, 4),
    "AutoencoderKLMochi": Tiny({"latent_channels": 4, "layers_per_block": [1] * 5, "encoder_block_out_channels": [32] * 4, "decoder_block_out_channels": [32] * 4, "add_attention_block": [False] * 5}, 4, 8, 6),
    "AutoencoderKLAllegro": Tiny({"block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 160}, 4, 8, 4),
    "AutoencoderVidTok": Tiny({"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_channels": 4}, 4, 8, 4),
    "AutoencoderKLMiniMaxH3": Tiny({"latent_channels": 4, "block_out_channels": [32, 32, 32], "layers_per_block": 1, "spatial_downsample_factors": [2, 2, 2], "temporal_downsample_factors": [1, 2, 2], "decoder_num_layers": 1, "decoder_num_attention_heads": 2, "decoder_attention_head_dim": 24, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}, 4, 8, 4),
    "AutoencoderKLTemporalDecoder": Tiny({"block_out_channels": [32, 32], "down_block_types": [DOWN] * 2, "latent_channels": 4}, 4, 2),
    "AsymmetricAutoencoderKL": Tiny({"down_block_types": [DOWN] * 2, "up_block_types": [UP] * 2, "down_block_out_channels": [8, 8], "up_block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 4}, 4, 2),
    "VQModel": Tiny({"block_out_channels": [8, 8], "down_block_types": [DOWN] * 2, "up_block_types": [UP] * 2, "norm_num_groups": 4, "latent_channels": 4}, 4, 2),
}  # fmt: skip
SIZE = (64, 96)
TILES = {  # pixels, the smallest or near it, and the frames of a clip
    "AutoencoderKL": 32,
    "AutoencoderKLFlux2": 32,
    "AutoencoderKLKVAE": 32,
    "AutoencoderTiny": 64,
    "AutoencoderDC": 32,
    "AutoencoderKLQwenImage": 32,
    "AutoencoderKLQwenImage21": 32,
    "AutoencoderKLWan": 32,
    "AutoencoderKLWan 5B": 32,
    "AutoencoderKLLTXVideo": 48,
    "AutoencoderKLLTX2Video": 48,
    "AutoencoderKLMagvit": 32,
    "AutoencoderKLHunyuanVideo": 32,
    "AutoencoderKLHunyuanVideo15": 32,
    "AutoencoderKLHunyuanImage": 32,
    "AutoencoderKLCogVideoX": 64,
    "AutoencoderKLMochi": 32,
    "AutoencoderVidTok": 64,
    "AutoencoderKLMiniMaxH3": 64,
}


def build(name: str) -> Any:
    """The VAE with the same random weights each time."""
    torch.manual_seed(0)
    return getattr(diffusers, name.partition(" ")[0])(**VAES[name].config).eval()


def latents(name: str, height: int, width: int, frames: int = 1) -> torch.Tensor:
    """Random latents of a picture or clip of this size."""
    tiny = VAES[name]
    size = [tiny.channels, height // tiny.ratio, width // tiny.ratio]
    if tiny.frames is not None:
        size.insert(1, (frames - 1) // tiny.frames + 1)
    return torch.randn(1, *size, generator=torch.Generator().manual_seed(1))


def granularity_of(name: str) -> int:
    space = granularity(name.partition(" ")[0], VAES[name].config).space
    assert space is not None
    return space
