"""Tiny pipelines that make pictures."""

from __future__ import annotations

from typing import Any

import diffusers as df
import torch

from tiny_models.texts import clip, clip_tokenizer, qwen3, qwen_tokenizer, qwen_vl, t5, t5_tokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SHIFTING = {
    "use_dynamic_shifting": True,
    "shift": 3.0,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
WITHOUT_QUANT: dict[str, Any] = {"use_quant_conv": False, "use_post_quant_conv": False}


def flow(**options: Any) -> Any:
    return df.FlowMatchEulerDiscreteScheduler(**options)


def vae(
    latents: int = 4,
    scaling: float = 0.18215,
    shift: float | None = None,
    groups: int = 4,
    widths: tuple[int, ...] = (8, 16),
    **options: Any,
) -> Any:
    torch.manual_seed(4)
    return df.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        latent_channels=latents,
        norm_num_groups=groups,
        sample_size=64,
        scaling_factor=scaling,
        shift_factor=shift,
        layers_per_block=1,
        **options,
    )


def _flux(pipeline: Any, widths: tuple[int, ...] = (8, 16), **transformer: Any) -> Any:
    torch.manual_seed(0)
    options = {"in_channels": 16, "guidance_embeds": True, **transformer}
    return pipeline(
        scheduler=flow(**SHIFTING),
        text_encoder=clip(),
        text_encoder_2=t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        transformer=df.FluxTransformer2DModel(
            patch_size=1,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
            **options,
        ),
        vae=vae(4, 1.5, 0.06, widths=widths, **WITHOUT_QUANT),
    )


def flux() -> Any:
    return _flux(df.FluxPipeline)


def kontext() -> Any:
    """Its VAE makes few latents: whatever is asked for, it edits a picture of a million pixels."""
    return _flux(df.FluxKontextPipeline, (4, 4, 8, 8, 8))


def flux_fill() -> Any:
    return _flux(df.FluxFillPipeline, in_channels=16 + 16 + 16, out_channels=16)


def qwen() -> Any:
    torch.manual_seed(4)
    decoder = df.AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.0, 1.1, 1.2, 1.3],
    )
    torch.manual_seed(0)
    transformer = df.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    return df.QwenImagePipeline(
        scheduler=flow(**SHIFTING),
        vae=decoder,
        text_encoder=qwen_vl(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def zimage() -> Any:
    torch.manual_seed(0)
    transformer = df.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[1536, 32, 32],
    )
    with torch.no_grad():
        transformer.x_pad_token.fill_(1)
        transformer.cap_pad_token.fill_(1)
    return df.ZImagePipeline(
        scheduler=flow(shift=3.0),
        vae=vae(16, 0.3611, 0.1159),
        text_encoder=qwen3(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def klein_parts() -> dict[str, Any]:
    torch.manual_seed(0)
    transformer = df.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=8,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=32,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=False,
    )
    torch.manual_seed(4)
    decoder = df.AutoencoderKLFlux2(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=1,
        **WITHOUT_QUANT,
    )
    with torch.no_grad():
        decoder.bn.running_mean.normal_()
        decoder.bn.running_var.uniform_(0.5, 1.5)
    return {
        "scheduler": flow(**SHIFTING),
        "vae": decoder,
        "text_encoder": qwen3(causal=True, layers=4),
        "tokenizer": qwen_tokenizer(),
        "transformer": transformer,
    }


def klein() -> Any:
    return df.Flux2KleinPipeline(**klein_parts())


def chroma() -> Any:
    torch.manual_seed(0)
    transformer = df.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return df.ChromaPipeline(
        scheduler=flow(shift=1.0),
        vae=vae(4, 0.3611, 0.1159, **WITHOUT_QUANT),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def pixart() -> Any:
    torch.manual_seed(0)
    transformer = df.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    return df.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=vae(),
        transformer=transformer,
        scheduler=df.DPMSolverMultistepScheduler(),
    )


def auraflow() -> Any:
    torch.manual_seed(0)
    transformer = df.AuraFlowTransformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=256,
    )
    return df.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(multilingual=True),
        vae=vae(),
        transformer=transformer,
        scheduler=flow(),
    )
