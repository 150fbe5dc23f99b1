"""Checks of parameters and configs against each other. Imported by the supervisor: no torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.api import Problem
from runner_flux.params import Encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.api import Facts
    from runner_flux.params import Decode, Diffuse

PATCH = 4  # latent pixels that are packed into one token of the transformer, 2 x 2
SCHNELL_TOKENS = 256  # schnell was distilled with prompts of this length
EMBEDS, POOLED = "prompt_embeds", "pooled_prompt_embeds"
NEGATIVE = "negative_prompt_embeds"


def encode(params: Encode, _facts: Facts) -> Iterator[Problem]:
    """Report a negative prompt that would have no effect."""
    if params.negative_prompt is None and params.negative_prompt_2 is not None:
        yield Problem(
            'negative_prompt_2 changes nothing without a negative_prompt: give one (it may be "")',
            "negative_prompt_2",
        )


def diffuse(params: Diffuse, facts: Facts) -> Iterator[Problem]:
    """Report a transformer that does not match its inputs, and guidance without effect."""
    yield from _transformer(facts)
    negative = facts.upstream.get(NEGATIVE)
    if isinstance(negative, Encode):
        yield from _guidance(params, negative)
    if facts.configs.get("transformer", {}).get("guidance_embeds") is False:
        yield from _distilled(params, facts.upstream.get(EMBEDS))


def decode(_params: Decode, facts: Facts) -> Iterator[Problem]:
    """Report a VAE that does not match the latents."""
    upstream_vae = facts.upstream_configs.get("latents", {}).get("vae", {})
    own, upstream = (config.get("latent_channels") for config in (facts.configs.get("vae", {}), upstream_vae))
    if None not in (own, upstream) and own != upstream:
        yield Problem(
            f"this VAE takes latents of {own} channels, and those of the diffuse stage have {upstream}: name "
            "the VAE of the same model",
            component="vae",
        )


def _transformer(facts: Facts) -> Iterator[Problem]:
    config = facts.configs.get("transformer", {})
    channels, latents = config.get("in_channels"), facts.configs.get("vae", {}).get("latent_channels")
    if isinstance(channels, int) and isinstance(latents, int) and channels != PATCH * latents:
        yield Problem(
            f"the transformer takes {channels} channels (in_channels), and text to image gives it "
            f"{PATCH * latents}: it is one for filling, depth or edges, or not of this VAE; name a model of "
            "FluxPipeline, such as FLUX.1-dev or FLUX.1-schnell",
            component="transformer",
        )
    yield from _widths(config, facts.upstream_configs)


def _widths(
    config: Mapping[str, Any], upstream: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[Problem]:
    for name, encoder, made_as, taken_as in (
        (EMBEDS, "text_encoder_2", "d_model", "joint_attention_dim"),
        (POOLED, "text_encoder", "hidden_size", "pooled_projection_dim"),
    ):
        made, taken = upstream.get(name, {}).get(encoder, {}).get(made_as), config.get(taken_as)
        if None not in (made, taken) and made != taken:
            yield Problem(
                f"the transformer takes text embeddings of {taken} numbers ({taken_as}), and {encoder} makes "
                f"{made} ({made_as}): they are of different models",
                component="transformer",
            )


def _guidance(params: Diffuse, encoded: Encode) -> Iterator[Problem]:
    if params.true_cfg_scale > 1 and encoded.negative_prompt is None:
        yield Problem(
            'true_cfg_scale over 1 needs a negative_prompt (it may be ""): give one, or leave it at 1',
            "true_cfg_scale",
        )
    if params.true_cfg_scale <= 1 and encoded.negative_prompt:
        yield Problem(
            "negative_prompt changes nothing without true_cfg_scale over 1: set that, or leave it out",
            "negative_prompt",
        )


def _distilled(params: Diffuse, encoded: Any) -> Iterator[Problem]:
    """Report settings that do not suit a transformer without guidance, such as schnell's."""
    if "guidance_scale" in params.model_fields_set:
        yield Problem(
            "guidance_scale changes nothing: this model has no guidance (guidance_embeds is false, as in "
            "FLUX.1-schnell)",
            "guidance_scale",
            warning=True,
        )
    if isinstance(encoded, Encode) and encoded.max_sequence_length > SCHNELL_TOKENS:
        yield Problem(
            f"max_sequence_length is {encoded.max_sequence_length}, and models without guidance, such as "
            f"FLUX.1-schnell, were made for {SCHNELL_TOKENS}: longer ones make other pictures",
            "max_sequence_length",
            warning=True,
        )
