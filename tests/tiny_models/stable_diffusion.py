"""Tiny Stable Diffusion pipelines: 1.5, XL and 3."""

from __future__ import annotations

from typing import Any

import diffusers as df
import torch

from tiny_models.images import BETAS, WITHOUT_QUANT, flow, vae
from tiny_models.texts import clip, clip_tokenizer, t5, t5_tokenizer


def unet(width: int, *, xl: bool = False) -> Any:
    torch.manual_seed(0)
    embeddings = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": (1, 2),
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
    }
    return df.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=2,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=xl,
        cross_attention_dim=width,
        norm_num_groups=4,
        **(embeddings if xl else {}),
    )


def sd15() -> Any:
    return df.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(32),
        scheduler=df.PNDMScheduler(**BETAS, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_parts() -> dict[str, Any]:
    return {
        "vae": vae(force_upcast=True),
        "text_encoder": clip(),
        "text_encoder_2": clip(projected=True, seed=5),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "unet": unet(64, xl=True),
        "scheduler": df.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
    }


def sdxl() -> Any:
    return df.StableDiffusionXLPipeline(**sdxl_parts())


def sdxl_controlnet() -> Any:
    parts = sdxl_parts()
    torch.manual_seed(8)
    controlnet = df.ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 16))
    for weight in controlnet.parameters():  # zero convolutions would hide it
        torch.nn.init.normal_(weight, std=0.05)
    return df.StableDiffusionXLControlNetPipeline(**parts, controlnet=controlnet)


def sd3() -> Any:
    torch.manual_seed(0)
    transformer = df.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return df.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=flow(shift=3.0),
        vae=vae(4, 1.5305, 0.0609, **WITHOUT_QUANT),
        text_encoder=clip(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected=True, seed=5),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(64),
        tokenizer_3=t5_tokenizer(),
    )
