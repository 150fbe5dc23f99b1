"""Tiny tokenizers and text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import runner_flux
import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

DEMO = Path(runner_flux.__file__).parent / "demo"
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<think>",
    "</think>",
)
CHAT = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}\
{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
BYTES = sorted(ByteLevel.alphabet())
QWEN_WORDS = len(BYTES) + len(SPECIAL)
ROPE = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}


def clip_tokenizer() -> Any:
    return tf.CLIPTokenizer.from_pretrained(DEMO / "tokenizer")


def t5_tokenizer() -> Any:
    return tf.AutoTokenizer.from_pretrained(DEMO / "tokenizer_2")


def qwen_tokenizer() -> Any:
    """Bytes, and the special tokens of Qwen's chats."""
    tokenizer = Tokenizer(models.BPE(vocab={byte: n for n, byte in enumerate(BYTES)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    return tf.Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT,
    )


def clip(width: int = 32, *, projected: bool = False, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    config = tf.CLIPTextConfig(
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
    return (tf.CLIPTextModelWithProjection if projected else tf.CLIPTextModel)(config)


def t5(width: int = 32, *, multilingual: bool = False, words: int = 154) -> Any:
    torch.manual_seed(2)
    config_class, cls = (
        (tf.UMT5Config, tf.UMT5EncoderModel) if multilingual else (tf.T5Config, tf.T5EncoderModel)
    )
    return cls(
        config_class(
            vocab_size=words,
            d_model=width,
            d_ff=2 * width,
            d_kv=16,
            num_heads=2,
            num_layers=2,
            feed_forward_proj="gated-gelu",
        )
    )


def qwen3(*, causal: bool = False, layers: int = 3) -> Any:
    torch.manual_seed(3)
    config = tf.Qwen3Config(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=QWEN_WORDS,
        max_position_embeddings=1024,
    )
    return (tf.Qwen3ForCausalLM if causal else tf.Qwen3Model)(config)


def qwen_vl_config(layers: int = 2) -> Any:
    special = {name: len(BYTES) + n for n, name in enumerate(SPECIAL)}
    return tf.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": QWEN_WORDS,
            "rope_scaling": ROPE,
            "rope_theta": 1e6,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [1],
        },
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        vision_token_id=special["<|vision_pad|>"],
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
    )


def qwen_vl() -> Any:
    torch.manual_seed(3)
    return tf.Qwen2_5_VLForConditionalGeneration(qwen_vl_config())


def clip_vision(size: int = 32) -> Any:
    torch.manual_seed(6)
    return tf.CLIPVisionModel(
        tf.CLIPVisionConfig(
            hidden_size=16,
            projection_dim=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=size,
            intermediate_size=16,
            patch_size=8,
        )
    )
