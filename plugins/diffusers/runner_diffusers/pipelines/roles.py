"""What each component of a pipeline is for: the stage that its weights belong to."""

from __future__ import annotations

import ast
import re
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from runner.api import UnsupportedModelError
from runner_diffusers.pipelines import calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner_diffusers.pipelines.entries import Entry
    from runner_diffusers.pipelines.source import SourceClass


class Role(StrEnum):
    """The stage that a component's weights belong to; auxiliary ones have no weights."""

    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"
    AUXILIARY = "auxiliary"


NAMES: Mapping[Role, str] = {
    Role.ENCODE: r"\w*text_encoder(_\d)?|\w*image_encoder|\w*projection_model|\w*image_embedder|siglip"
    r"|bert|vision_\w*(encoder|model)|connectors|language_model|text_proj|mllm|vlm|qformer|pe"
    r"|prompt_enhancer\w*|condition_encoder|duration_(head|embedder)|depth_estimator|caption_generator|image_project|image_normalizer"
    r"|(notes|continuous)_encoder|audio_tokenizer|audio_token_detokenizer",
    Role.DENOISE: r"\w*transformer(_\d)?|\w*unet|controlnet(_\d)?|(prior_)?prior|dit|adapter|motion_adapter"
    r"|\w*latent_upsampler|latent_upscaler|super_res_(first|last)|learned_\w+_embeddings",
    Role.DECODE: r"(audio_)?vae(_decoder)?|movq|vqvae|vqgan|\w*vocoder|\w*decoder|safety_checker|watermarker"
    r"|shap_e_renderer|sound_tokenizer|melgan",
}
"""The role of components with weights, by the whole name."""

CLASSES: Mapping[Role, str] = {
    Role.DENOISE: r"\w*(Transformer(\dD)?|UNet\w*|ControlNet)Model$",
    Role.DECODE: r"Autoencoder|VQModel|\w*Vocoder",
    Role.ENCODE: r"CLIP|\w*T5|\w*TextModel|\w*VisionModel|\w*ForConditionalGeneration$",
}
"""The role of components whose name tells none, by the class."""

WITHOUT_WEIGHTS = re.compile(
    r"(Tokenizer|Processor|FeatureExtractor|Scheduler|Guidance)(s|\w*Fast|Base|Mixin)?$|^Mel$"
)
"""Classes in annotations that have no weights."""

EXCEPTIONS: Mapping[tuple[str, str], Role] = {
    # a second denoiser, though it is called as what decodes
    ("UnCLIPPipeline", "decoder"): Role.DENOISE,
    ("UnCLIPImageVariationPipeline", "decoder"): Role.DENOISE,
    ("StableCascadeDecoderPipeline", "decoder"): Role.DENOISE,
    ("StableCascadeCombinedPipeline", "decoder"): Role.DENOISE,
    ("WuerstchenDecoderPipeline", "decoder"): Role.DENOISE,
    ("WuerstchenCombinedPipeline", "decoder"): Role.DENOISE,
    ("SpectrogramDiffusionPipeline", "decoder"): Role.DENOISE,
}
"""Components with weights whose name tells another role than they have in that pipeline."""


def named_role(pipeline: str, name: str) -> Role | None:
    """The role that the name of a component with weights tells; None if it tells none."""
    if (pipeline, name) in EXCEPTIONS:
        return EXCEPTIONS[pipeline, name]
    return next((role for role, names in NAMES.items() if re.fullmatch(names, name)), None)


def role_of(pipeline: str, name: str, entry: Entry) -> Role:
    """The role of a component of a model, by its name and class; refused if neither tells it."""
    if not entry.has_weights:
        return Role.AUXILIARY
    role = named_role(pipeline, name) or next(
        (r for r, names in CLASSES.items() if re.match(names, entry.name)), None
    )
    if role is None:
        raise UnsupportedModelError(
            f"{name} ({entry.name}) of {pipeline}: neither its name nor its class tells whether it encodes, "
            "denoises or decodes"
        )
    return role


@cache
def declared_roles(cls: SourceClass) -> Mapping[str, Role]:
    """The roles of what a pipeline's `__init__` takes, by name and annotation, as far as these tell them."""
    found = {}
    for name, parameter in calls.init_parameters(cls).items():
        role = named_role(cls.name, name)
        if role is None and parameter.annotation is not None:
            names = [node.id for node in ast.walk(parameter.annotation) if isinstance(node, ast.Name)]
            role = Role.AUXILIARY if any(WITHOUT_WEIGHTS.search(one) for one in names) else None
        if role is not None:
            found[name] = role
    return found
