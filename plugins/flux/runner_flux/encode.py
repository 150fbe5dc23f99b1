"""Prompts to embeddings: CLIP's pooled vector and T5's sequence, as diffusers' FluxPipeline makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import FluxPipeline
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from runner.api import Context, Item

# named so that a preload of this module brings them along
COMPONENTS = (CLIPTextModel, T5EncoderModel, CLIPTokenizer, T5TokenizerFast)


def start(ctx: Context) -> Callable[[Item], dict[str, torch.Tensor]]:
    """Load the encoders; what is returned makes (S, D) and (P,) embeddings of one item's prompts."""
    pipeline = FluxPipeline(
        scheduler=None,
        vae=None,
        text_encoder=ctx.load("text_encoder"),
        tokenizer=ctx.load("tokenizer"),
        text_encoder_2=ctx.load("text_encoder_2"),
        tokenizer_2=ctx.load("tokenizer_2"),
        transformer=None,
    )

    def embed(prompt: str, prompt_2: str | None, length: int) -> tuple[Any, Any]:
        embeds, pooled, _ids = pipeline.encode_prompt(
            prompt=prompt, prompt_2=prompt_2, device=ctx.device, max_sequence_length=length
        )
        return embeds[0], pooled[0]

    def one(item: Item) -> dict[str, torch.Tensor]:
        params = item.params
        embeds, pooled = embed(params.prompt, params.prompt_2, params.max_sequence_length)
        outputs = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        if params.negative_prompt is not None:
            negative, negative_pooled = embed(
                params.negative_prompt, params.negative_prompt_2, params.max_sequence_length
            )
            outputs["negative_prompt_embeds"] = negative
            outputs["negative_pooled_prompt_embeds"] = negative_pooled
        return outputs

    return one
