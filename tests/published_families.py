"""Checkpoints of published models: their configs and shapes, in files that take no room.

What they say of a model is from its authors' papers and diffusers' conversion scripts and defaults; the configs
of text encoders are those of the models that they are taken from.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import fcntl
import json
import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers as df
import torch
import transformers as tf
from large import VAE, write
from tiny_models.images import BETAS, SHIFTING, WITHOUT_QUANT
from tiny_models.texts import clip_tokenizer, qwen_tokenizer, t5_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Parts = Mapping[str, Any]

INDEX = "model_index.json"
T5_XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
KL = {
    name: value
    for name, value in VAE.items()
    if name not in ("latent_channels", "scaling_factor", "shift_factor")
}


def _scheduler(cls: Any, **options: Any) -> Any:
    with torch.device("cpu"):  # it computes when it is made
        return cls(**options)


def _t5() -> Any:
    return tf.T5EncoderModel(tf.T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **T5_XXL))


def _umt5() -> Any:
    return tf.UMT5EncoderModel(tf.UMT5Config(vocab_size=256384, feed_forward_proj="gated-gelu", **T5_XXL))


def _clip(width: int, layers: int, heads: int, *, projected: bool) -> Any:
    config = tf.CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
    )
    return (tf.CLIPTextModelWithProjection if projected else tf.CLIPTextModel)(config)


def _clips(*, projected: bool) -> Parts:
    """CLIP-L and OpenCLIP's bigG."""
    return {
        "text_encoder": _clip(768, 12, 12, projected=projected),
        "text_encoder_2": _clip(1280, 32, 20, projected=True),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
    }


def _qwen3_4b(cls: Any) -> Any:
    return cls(
        tf.Qwen3Config(
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=151936,
            tie_word_embeddings=True,
        )
    )


def klein() -> Parts:
    """FLUX.2-klein-4B."""
    return {
        "transformer": df.Flux2Transformer2DModel(
            num_layers=5,
            num_single_layers=20,
            num_attention_heads=24,
            joint_attention_dim=3 * 2560,
            guidance_embeds=False,
        ),
        "text_encoder": _qwen3_4b(tf.Qwen3ForCausalLM),
        "tokenizer": qwen_tokenizer(),
        "vae": df.AutoencoderKLFlux2(),
        "scheduler": _scheduler(df.FlowMatchEulerDiscreteScheduler, **SHIFTING),
    }


def qwen_image() -> Parts:
    """Qwen-Image."""
    text = tf.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
        vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
    )
    return {
        "transformer": df.QwenImageTransformer2DModel(),
        "text_encoder": tf.Qwen2_5_VLForConditionalGeneration(text),
        "tokenizer": qwen_tokenizer(),
        "vae": df.AutoencoderKLQwenImage(),
        "scheduler": _scheduler(df.FlowMatchEulerDiscreteScheduler, **SHIFTING),
    }


def z_image() -> Parts:
    """Z-Image-Turbo."""
    return {
        "transformer": df.ZImageTransformer2DModel(),
        "text_encoder": _qwen3_4b(tf.Qwen3Model),
        "tokenizer": qwen_tokenizer(),
        "vae": df.AutoencoderKL(**VAE),
        "scheduler": _scheduler(df.FlowMatchEulerDiscreteScheduler, shift=3.0),
    }


def sdxl() -> Parts:
    """Stable Diffusion XL base 1.0."""
    unet = df.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        transformer_layers_per_block=(1, 2, 10),
        projection_class_embeddings_input_dim=2816,
    )
    vae = df.AutoencoderKL(
        **{n: v for n, v in KL.items() if n not in WITHOUT_QUANT}, scaling_factor=0.13025, force_upcast=True
    )
    return {
        **_clips(projected=False),
        "unet": unet,
        "vae": vae,
        "scheduler": _scheduler(df.EulerDiscreteScheduler, **BETAS),
    }


def sd3() -> Parts:
    """Stable Diffusion 3.5 large."""
    transformer = df.SD3Transformer2DModel(
        sample_size=128,
        num_layers=38,
        num_attention_heads=38,
        caption_projection_dim=2432,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
    )
    return {
        **_clips(projected=True),
        "text_encoder_3": _t5(),
        "tokenizer_3": t5_tokenizer(),
        "transformer": transformer,
        "vae": df.AutoencoderKL(**{**VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
        "scheduler": _scheduler(df.FlowMatchEulerDiscreteScheduler, shift=3.0),
    }


def kontext() -> Parts:
    """FLUX.1-Kontext-dev."""
    return {
        "text_encoder": _clip(768, 12, 12, projected=False),
        "text_encoder_2": _t5(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "transformer": df.FluxTransformer2DModel(guidance_embeds=True),
        "vae": df.AutoencoderKL(**VAE),
        "scheduler": _scheduler(df.FlowMatchEulerDiscreteScheduler, **SHIFTING),
    }


def _wan(**transformer: Any) -> Parts:
    return {
        "tokenizer": t5_tokenizer(),
        "text_encoder": _umt5(),
        "vae": df.AutoencoderKLWan(),
        "scheduler": _scheduler(
            df.UniPCMultistepScheduler,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=3.0,
        ),
        "transformer": df.WanTransformer3DModel(**transformer),
        "transformer_2": df.WanTransformer3DModel(**transformer),
    }


def wan() -> Parts:
    """Wan 2.2 T2V-A14B: two transformers of 14 billion weights."""
    return {**_wan(), "boundary_ratio": 0.875}


def wan_i2v() -> Parts:
    """Wan 2.2 I2V-A14B: the picture's latents and a mask are further channels."""
    return {**_wan(in_channels=36), "boundary_ratio": 0.9}


def ltx() -> Parts:
    """LTX-Video 0.9."""
    return {
        "transformer": df.LTXVideoTransformer3DModel(),
        "text_encoder": _t5(),
        "tokenizer": t5_tokenizer(),
        "vae": df.AutoencoderKLLTXVideo(),
        "scheduler": _scheduler(df.FlowMatchEulerDiscreteScheduler, **SHIFTING),
    }


FAMILIES: Mapping[str, tuple[str, Callable[[], Parts]]] = {
    "klein": ("Flux2KleinPipeline", klein),
    "qwen_image": ("QwenImagePipeline", qwen_image),
    "z_image": ("ZImagePipeline", z_image),
    "sdxl": ("StableDiffusionXLPipeline", sdxl),
    "sd3": ("StableDiffusion3Pipeline", sd3),
    "kontext": ("FluxKontextPipeline", kontext),
    "wan": ("WanPipeline", wan),
    "wan_i2v": ("WanImageToVideoPipeline", wan_i2v),
    "ltx": ("LTXPipeline", ltx),
}


def _pairs(vocabulary: Mapping[str, int], added: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    """A letter and a word, then a word that was added so far and a letter: as many as anybody takes."""
    letters = [word for word in vocabulary if len(word) == 1]
    yield from product(letters, list(vocabulary))
    yield from product(list(added), letters)


def _grow(tokenizer: Path, size: int) -> None:
    """Add words that no text has, so that a tiny tokenizer has as many as the encoder takes."""
    table = json.loads(tokenizer.read_text())
    vocabulary = table["model"]["vocab"]
    known = len(vocabulary) + sum(one["content"] not in vocabulary for one in table["added_tokens"])
    if isinstance(vocabulary, dict):
        added: dict[str, list[str]] = {}
        for a, b in _pairs(vocabulary, added):
            if len(added) >= size - known:
                break
            if a + b not in vocabulary and not b.startswith("<|"):
                added.setdefault(a + b, [a, b])
        vocabulary |= {word: known + n for n, word in enumerate(added)}
        table["model"]["merges"] += [*added.values()]
    else:
        vocabulary += [[f"word{n}", -99.0] for n in range(known, size)]
    tokenizer.write_text(json.dumps(table))


def publish(name: str, folder: Path) -> Path:
    """Write a family's checkpoint to a folder."""
    folder.mkdir(exist_ok=True)
    pipeline, parts = FAMILIES[name]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1"}
    with torch.device("meta"):
        made = parts()
    for part, value in made.items():
        if not hasattr(value, "save_pretrained"):
            index[part] = value
            continue
        library = type(value).__module__.partition(".")[0]
        index[part] = [library, type(value).__name__]
        if isinstance(value, torch.nn.Module):
            stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
            tied = getattr(value.config, "tie_word_embeddings", False)
            write(folder / part, value, stem, sparse=True, without=("lm_head.weight",) if tied else ())
        else:
            value.save_pretrained(folder / part)
            if part.startswith("tokenizer"):
                encoder = made[part.replace("tokenizer", "text_encoder")]
                _grow(folder / part / "tokenizer.json", encoder.get_input_embeddings().num_embeddings)
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def published(name: str) -> Path:
    """A family's checkpoint, made once for all tests: it is for reading alone."""
    folder = Path(os.environ["RUNNER_TESTS_SHARED"], "published")
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name / INDEX).exists():  # it is written last
            publish(name, folder / name)
    return folder / name
