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
        report_cut(item, pipeline)
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


def report_cut(item: Item, pipeline: FluxPipeline) -> None:
    """Warn of each prompt that T5 does not read to its end, with the words that it does not read."""
    params, limit = item.params, item.params.max_sequence_length
    for field, other in (("prompt", "prompt_2"), ("negative_prompt", "negative_prompt_2")):
        text = getattr(params, field)
        if text is None:
            continue
        seen = pipeline.tokenizer_max_length
        if len(pipeline.tokenizer(text).input_ids) > seen:
            item.note(f"CLIP reads the first {seen} tokens of a prompt, as FLUX.1 is made; T5 reads on")
        read = other if getattr(params, other) else field  # as FluxPipeline.encode_prompt has it
        tokens, words = cut_off(pipeline.tokenizer_2, getattr(params, read), limit)
        if words:
            message = f"{read} has {tokens} tokens, max_sequence_length is {limit}: cut off is {words!r}"
            item.warn("prompt_cut", message, field=read, tokens=tokens, limit=limit, words=words)


def cut_off(tokenizer: Any, text: str, limit: int) -> tuple[int, str]:
    """Count the tokens of a text, and return the words of those past the limit."""
    encoded = tokenizer(text, return_offsets_mapping=tokenizer.is_fast)
    tokens = encoded.input_ids
    if len(tokens) <= limit:
        return len(tokens), ""
    # the last of the tokens that are read is the one that ends every text
    if tokenizer.is_fast:
        return len(tokens), text[encoded.offset_mapping[limit - 1][0] :].strip()
    return len(tokens), tokenizer.decode(tokens[limit - 1 : -1]).strip()
