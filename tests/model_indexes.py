"""``model_index.json`` of published diffusers models, by pipeline, and what the engine tells of such a model."""

from __future__ import annotations

from typing import Any

from runner.api import ModelFacts

CLIP, CLIP_2 = ["transformers", "CLIPTextModel"], ["transformers", "CLIPTextModelWithProjection"]
T5, CLIP_TOKENS, T5_TOKENS = (
    ["transformers", "T5EncoderModel"],
    ["transformers", "CLIPTokenizer"],
    ["transformers", "T5TokenizerFast"],
)
KL, FLOW = ["diffusers", "AutoencoderKL"], ["diffusers", "FlowMatchEulerDiscreteScheduler"]
GEMMA_TOKENS, QWEN_TOKENS = ["transformers", "GemmaTokenizerFast"], ["transformers", "Qwen2Tokenizer"]

FLUX = {
    "scheduler": FLOW,
    "text_encoder": CLIP,
    "text_encoder_2": T5,
    "tokenizer": CLIP_TOKENS,
    "tokenizer_2": T5_TOKENS,
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": KL,
}
SDXL = {
    "force_zeros_for_empty_prompt": True,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": CLIP,
    "text_encoder_2": CLIP_2,
    "tokenizer": CLIP_TOKENS,
    "tokenizer_2": CLIP_TOKENS,
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": KL,
}
WAN = {
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": T5_TOKENS,
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
SANA = {
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "Gemma2Model"],
    "tokenizer": GEMMA_TOKENS,
    "transformer": ["diffusers", "SanaTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderDC"],
}
INDEXES: dict[str, dict[str, Any]] = {
    "FluxPipeline": FLUX,
    "FluxKontextPipeline": {**FLUX, "feature_extractor": [None, None], "image_encoder": [None, None]},
    "FluxFillPipeline": FLUX,
    "Flux2KleinPipeline": {
        "is_distilled": True,
        "scheduler": FLOW,
        "text_encoder": ["transformers", "Qwen3ForCausalLM"],
        "tokenizer": ["transformers", "Qwen2TokenizerFast"],
        "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    },
    "StableDiffusionPipeline": {
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": CLIP,
        "tokenizer": CLIP_TOKENS,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": KL,
    },
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusionXLInpaintPipeline": SDXL,
    "StableDiffusion3Pipeline": {
        "scheduler": FLOW,
        "text_encoder": CLIP_2,
        "text_encoder_2": CLIP_2,
        "text_encoder_3": T5,
        "tokenizer": CLIP_TOKENS,
        "tokenizer_2": CLIP_TOKENS,
        "tokenizer_3": T5_TOKENS,
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": KL,
    },
    "QwenImagePipeline": {
        "scheduler": FLOW,
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": QWEN_TOKENS,
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    },
    "ZImagePipeline": {
        "scheduler": FLOW,
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": QWEN_TOKENS,
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": KL,
    },
    "WanPipeline": {
        **WAN,
        "transformer_2": ["diffusers", "WanTransformer3DModel"],
        "boundary_ratio": 0.875,
        "expand_timesteps": False,
    },
    "WanImageToVideoPipeline": {
        **WAN,
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
    },
    "LTXPipeline": {
        "scheduler": FLOW,
        "text_encoder": T5,
        "tokenizer": T5_TOKENS,
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    },
    "LTX2Pipeline": {
        "audio_vae": ["diffusers", "AutoencoderKLLTX2Audio"],
        "connectors": ["ltx2", "LTX2TextConnectors"],
        "scheduler": FLOW,
        "text_encoder": ["transformers", "Gemma3ForConditionalGeneration"],
        "tokenizer": GEMMA_TOKENS,
        "transformer": ["diffusers", "LTX2VideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTX2Video"],
        "vocoder": ["ltx2", "LTX2Vocoder"],
    },
    "HiDreamImagePipeline": {
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": CLIP_2,
        "text_encoder_2": CLIP_2,
        "text_encoder_3": T5,
        "tokenizer": CLIP_TOKENS,
        "tokenizer_2": CLIP_TOKENS,
        "text_encoder_4": ["transformers", "LlamaForCausalLM"],
        "tokenizer_3": ["transformers", "T5Tokenizer"],
        "tokenizer_4": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "HiDreamImageTransformer2DModel"],
        "vae": KL,
    },
    "CogVideoXPipeline": {
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
        "text_encoder": T5,
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    },
    "StableAudioPipeline": {
        "projection_model": ["stable_audio", "StableAudioProjectionModel"],
        "scheduler": ["diffusers", "CosineDPMSolverMultistepScheduler"],
        "text_encoder": T5,
        "tokenizer": T5_TOKENS,
        "transformer": ["diffusers", "StableAudioDiTModel"],
        "vae": ["diffusers", "AutoencoderOobleck"],
    },
    "SanaPipeline": SANA,
    "PixArtSigmaPipeline": {
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": T5,
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": KL,
    },
    "HunyuanImagePipeline": {
        "guider": ["diffusers", "AdaptiveProjectedMixGuidance"],
        "ocr_guider": ["diffusers", "AdaptiveProjectedMixGuidance"],
        "scheduler": FLOW,
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "text_encoder_2": T5,
        "tokenizer": QWEN_TOKENS,
        "tokenizer_2": ["transformers", "ByT5Tokenizer"],
        "transformer": ["diffusers", "HunyuanImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLHunyuanImage"],
    },
}


def facts_of(
    pipeline: str, *, index: str = "", configs: dict[str, Any] | None = None, **changes: Any
) -> ModelFacts:
    """A model whose index is that of `index`, or of the pipeline itself, with changed entries."""
    name = index or pipeline
    entries = {**INDEXES[name], **changes}
    kept = {key: value for key, value in entries.items() if value is not ...}
    return ModelFacts(
        configs or {}, {}, {"_class_name": name, "_diffusers_version": "0.42.1", **kept}, pipeline
    )
