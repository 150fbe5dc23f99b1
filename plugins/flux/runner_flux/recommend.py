"""Recommended parameters of a FLUX model, read from its own files, for `runner new`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.api import Recommended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import ModelFacts

# the pipeline's arguments as model cards name them: stage in the template, and parameter
ARGUMENTS = {
    "num_inference_steps": ("diffuse", "steps"),
    "guidance_scale": ("diffuse", "guidance_scale"),
    "true_cfg_scale": ("diffuse", "true_cfg_scale"),
    "height": ("diffuse", "height"),
    "width": ("diffuse", "width"),
    "max_sequence_length": ("encode", "max_sequence_length"),
}
PROMPTS = 4  # at most
PATCH = 16  # pixels; sides are multiples of it


def recommend(model: ModelFacts) -> Recommended:
    """The VAE's native size, schnell's settings for models without guidance, and the card's parameters."""
    parameters: dict[str, dict[str, Any]] = {"encode": {}, "diffuse": {}}
    side = model.configs.get("vae", {}).get("sample_size")
    if isinstance(side, int) and side >= PATCH:
        side -= side % PATCH
        parameters["diffuse"] |= {"height": side, "width": side}
    if model.configs.get("transformer", {}).get("guidance_embeds") is False:  # as FLUX.1-schnell
        parameters["encode"]["max_sequence_length"] = 256
        parameters["diffuse"] |= {"steps": 4, "guidance_scale": None}
    from_card = _table(_table(model.card, "inference"), "parameters")
    for argument, (stage, name) in ARGUMENTS.items():
        if argument in from_card:
            parameters[stage][name] = from_card[argument]
    return Recommended(parameters, _prompts(model.card))


def _prompts(card: Mapping[str, Any]) -> tuple[str, ...]:
    """The example prompts of a card: ``widget: [{text: ...}]``."""
    examples = card.get("widget")
    listed = examples if isinstance(examples, list) else []
    texts = [example.get("text") for example in listed if isinstance(example, dict)]
    return tuple(text for text in texts if isinstance(text, str) and text.strip())[:PROMPTS]


def _table(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = card.get(name)
    return found if isinstance(found, dict) else {}
