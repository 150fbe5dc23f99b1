"""Tiny pipelines that do something in another way than most: each was wrong once."""

from __future__ import annotations

from typing import Any

import diffusers as df
import torch
import transformers as tf

from tiny_models.clips import wan_parts
from tiny_models.images import BETAS, WITHOUT_QUANT, flow, klein_parts, vae
from tiny_models.stable_diffusion import sdxl_parts
from tiny_models.texts import t5, t5_tokenizer


def svd() -> Any:
    """Its picture gets noise before the VAE encodes it; ``fps`` is a keyword of its call."""
    torch.manual_seed(0)
    unet = df.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=32,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=16,
        num_attention_heads=(2, 4),
        projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
    )
    torch.manual_seed(4)
    decoder = df.AutoencoderKLTemporalDecoder(
        block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4
    )
    torch.manual_seed(6)
    encoder = tf.CLIPVisionModelWithProjection(
        tf.CLIPVisionConfig(
            hidden_size=16,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=224,
            intermediate_size=16,
            patch_size=32,
        )
    )
    scheduler = df.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
    )
    return df.StableVideoDiffusionPipeline(
        unet=unet,
        vae=decoder,
        image_encoder=encoder,
        scheduler=scheduler,
        feature_extractor=tf.CLIPImageProcessor(),
    )


def bria() -> Any:
    """It asks for its scheduler's exact class."""
    torch.manual_seed(0)
    transformer = df.BriaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=None,
        axes_dims_rope=[0, 4, 4],
    )
    return df.BriaPipeline(
        scheduler=flow(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
        vae=vae(4, 0.13025, 0.0, **WITHOUT_QUANT),
        image_encoder=None,
        feature_extractor=None,
    )


def klein_kv() -> Any:
    """Its transformer keeps keys and values of the pictures from the first step on: it cannot be resumed."""
    parts = klein_parts()
    return df.Flux2KleinKVPipeline(**parts)


def sdxl_adapter() -> Any:
    """Its T2I adapter runs once, before the loop."""
    torch.manual_seed(8)
    adapter = df.T2IAdapter(
        in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter_xl"
    )
    return df.StableDiffusionXLAdapterPipeline(
        **sdxl_parts() | {"scheduler": df.EulerAncestralDiscreteScheduler(**BETAS)}, adapter=adapter
    )


def vace() -> Any:
    """Clips, masks and pictures are encoded one by one."""
    torch.manual_seed(0)
    transformer = df.WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=3,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
        vace_layers=[0, 2],
        vace_in_channels=96,
    )
    return df.WanVACEPipeline(**wan_parts(transformer))
