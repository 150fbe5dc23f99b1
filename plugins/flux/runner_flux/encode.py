"""The encode stage: prompts to CLIP's pooled embedding and T5's sequence, with diffusers' FluxPipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import FluxPipeline
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from runner.api import Context, Item

# the classes that `ctx.load` needs, imported with this module, so that preloading it covers them
COMPONENTS = (CLIPTextModel, T5EncoderModel, CLIPTokenizer, T5TokenizerFast)


def start(ctx: Context) -> Callable[[Item], dict[str, torch.Tensor]]:
    """Load the encoders; the returned function makes (S, D) and (P,) embeddings of one item's prompts."""
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
    """Warn of each prompt that is longer than T5's limit, with the words that are cut off."""
    params, limit = item.params, item.params.max_sequence_length
    for field, other in (("prompt", "prompt_2"), ("negative_prompt", "negative_prompt_2")):
        text = getattr(params, field)
        if text is None:
            continue
        clip_limit = pipeline.tokenizer_max_length
        if len(pipeline.tokenizer(text).input_ids) > clip_limit:
            item.note(f"CLIP reads the first {clip_limit} tokens of a prompt, as FLUX.1 is made; T5 reads on")
        read = other if getattr(params, other) else field  # like FluxPipeline.encode_prompt
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
    # the last token that is read is the end-of-text token, which replaces one of the prompt's
    if tokenizer.is_fast:
        return len(tokens), text[encoded.offset_mapping[limit - 1][0] :].strip()
    return len(tokens), tokenizer.decode(tokens[limit - 1 : -1]).strip()
