"""Tiny pipelines that make clips."""

from __future__ import annotations

from typing import Any

import diffusers as df
import torch
import transformers as tf
from diffusers.guiders import ClassifierFreeGuidance

from tiny_models.images import SHIFTING, flow
from tiny_models.texts import clip_vision, qwen_tokenizer, qwen_vl_config, t5, t5_tokenizer


def _unipc(shift: float = 3.0) -> Any:
    return df.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def _wan_vae() -> Any:
    torch.manual_seed(4)
    return df.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )


def _wan_transformer(channels: int = 16, seed: int = 0, image_dim: int | None = None) -> Any:
    torch.manual_seed(seed)
    return df.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
        image_dim=image_dim,
    )


def wan_parts(transformer: Any) -> dict[str, Any]:
    return {
        "tokenizer": t5_tokenizer(),
        "text_encoder": t5(multilingual=True),
        "vae": _wan_vae(),
        "scheduler": _unipc(),
        "transformer": transformer,
        "transformer_2": None,
    }


def _wan(pipeline: Any, transformer: Any, **others: Any) -> Any:
    return pipeline(**wan_parts(transformer) | others)


def wan21() -> Any:
    return _wan(df.WanPipeline, _wan_transformer())


def wan22() -> Any:
    second = _wan_transformer(seed=9)
    return _wan(df.WanPipeline, _wan_transformer(), transformer_2=second, boundary_ratio=0.875)


def wan_i2v() -> Any:
    return _wan(
        df.WanImageToVideoPipeline,
        _wan_transformer(36, image_dim=16),
        image_encoder=clip_vision(),
        image_processor=tf.CLIPImageProcessor(crop_size=32, size=32),
    )


def wan_ti2v() -> Any:
    """Wan 2.2 5B: the first frame's timestep is zero."""
    return _wan(
        df.WanImageToVideoPipeline,
        _wan_transformer(),
        image_encoder=None,
        image_processor=None,
        expand_timesteps=True,
    )


def _ltx(*, conditioned: bool) -> Any:
    torch.manual_seed(4)
    decoder = df.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(conditioned,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=conditioned,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    torch.manual_seed(0)
    transformer = df.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    )
    return df.LTXPipeline(
        scheduler=flow(**SHIFTING),
        vae=decoder,
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def ltx() -> Any:
    return _ltx(conditioned=False)


def ltx091() -> Any:
    """LTX 0.9.1: its tail and its VAE draw noise."""
    return _ltx(conditioned=True)


def cogvideox() -> Any:
    torch.manual_seed(0)
    transformer = df.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=2,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
    )
    torch.manual_seed(4)
    decoder = df.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return df.CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=decoder,
        transformer=transformer,
        scheduler=df.CogVideoXDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    )


def hunyuan15() -> Any:
    torch.manual_seed(0)
    transformer = df.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=16,
        text_embed_2_dim=32,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    torch.manual_seed(4)
    decoder = df.AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    torch.manual_seed(3)
    text = tf.Qwen2_5_VLTextModel(qwen_vl_config(layers=3).text_config)
    return df.HunyuanVideo15Pipeline(
        text_encoder=text,
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
        vae=decoder,
        scheduler=flow(shift=7.0),
        text_encoder_2=t5(words=400),
        tokenizer_2=tf.ByT5Tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )
