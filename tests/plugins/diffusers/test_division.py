"""Which pipelines of the installed diffusers can be split into three stages, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest
from runner_diffusers.pipelines import calls, source
from runner_diffusers.pipelines.division import encodes_pictures, reason_against
from runner_diffusers.pipelines.roles import Role, declared_roles

if TYPE_CHECKING:
    from runner_diffusers.pipelines.source import SourceClass

NO_LOOP = "it has no denoising loop of its own"

INDIVISIBLE = {
    "AudioLDM2Pipeline": "text_encoder, the encoder, is called again after the denoising loop",
    "Cosmos2TextToImagePipeline": "its safety checker, of the package cosmos_guardrail",
    "FluxPriorReduxPipeline": NO_LOOP,
    "HeliosPipeline": "vae, the decoder, is called inside the denoising loop",
    "HeliosPyramidPipeline": "vae, the decoder, is called inside the denoising loop",
    "HunyuanVideoFramepackPipeline": "vae, the decoder, is called inside the denoising loop",
    "KandinskyPriorPipeline": "image_encoder, the encoder, is called again after the denoising loop",
    "KandinskyV22CombinedPipeline": NO_LOOP,
    "LTXI2VLongMultiPromptPipeline": "text_encoder, the encoder, is called inside the denoising loop",
    "LTXLatentUpsamplePipeline": NO_LOOP,
    "OnnxStableDiffusionPipeline": "it runs ONNX files",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": "vae, the picture encoder, is called inside the denoising loop",
    "StableUnCLIPPipeline": "text_encoder, the encoder, is called between two denoising loops",
    "WanAnimatePipeline": "vae, the picture encoder, is called inside the denoising loop",
}

TEXT, TEXTS = {"text_encoder"}, {"text_encoder", "text_encoder_2"}
IP = {"image_encoder"}
VAE, DIT, UNET = {"vae"}, {"transformer"}, {"unet"}
BY_HAND: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    # encoders, denoisers, decoders that are called, and decoders that also encode
    "AceStepPipeline": (
        TEXT | {"condition_encoder", "audio_tokenizer", "audio_token_detokenizer"},
        DIT,
        VAE,
        VAE,
    ),
    "AuraFlowPipeline": (TEXT, DIT, VAE, set()),
    "ChromaPipeline": (TEXT | IP, DIT, VAE, set()),
    "ChronoEditPipeline": (TEXT | IP, DIT, VAE, VAE),
    "CogVideoXPipeline": (TEXT, DIT, VAE, set()),
    "EasyAnimateInpaintPipeline": (TEXT, DIT, VAE, VAE),
    "Flux2KleinPipeline": (TEXT, DIT, VAE, VAE),
    "FluxFillPipeline": (TEXTS, DIT, VAE, VAE),
    "FluxKontextPipeline": (TEXTS | IP, DIT, VAE, VAE),
    "GlmImagePipeline": (TEXT | {"vision_language_encoder"}, DIT, VAE, VAE),
    "HiDreamImagePipeline": (TEXTS | {"text_encoder_3", "text_encoder_4"}, DIT, VAE, set()),
    "HunyuanVideo15ImageToVideoPipeline": (TEXTS | IP, DIT, VAE, VAE),
    "IFPipeline": (TEXT, UNET, {"safety_checker", "watermarker"}, set()),
    "Ideogram4Pipeline": (TEXT, DIT | {"unconditional_transformer"}, VAE, set()),
    "Kandinsky5T2VPipeline": (TEXTS, DIT, VAE, set()),
    "LTX2Pipeline": (
        TEXT | {"connectors", "prompt_enhancer", "duration_head"},
        DIT,
        VAE | {"audio_vae", "vocoder"},
        set(),
    ),
    "LTXConditionPipeline": (TEXT, DIT, VAE, VAE),
    "Lumina2Pipeline": (TEXT, DIT, VAE, set()),
    "MochiPipeline": (TEXT, DIT, VAE, set()),
    "QwenImageEditPlusPipeline": (TEXT, DIT, VAE, VAE),
    "SanaPipeline": (TEXT, DIT, VAE, set()),
    "SkyReelsV2ImageToVideoPipeline": (TEXT | IP, DIT, VAE, VAE),
    "StableAudioPipeline": (TEXT | {"projection_model"}, DIT, VAE, VAE),
    "StableDiffusion3Img2ImgPipeline": (TEXTS | {"text_encoder_3"} | IP, DIT, VAE, VAE),
    "StableDiffusionXLAdapterPipeline": (TEXTS | IP, UNET | {"adapter"}, VAE, set()),
    "StableDiffusionXLControlNetPipeline": (TEXTS | IP, UNET | {"controlnet"}, VAE, set()),
    "StableDiffusionXLInpaintPipeline": (TEXTS | IP, UNET, VAE, VAE),
    "StableVideoDiffusionPipeline": (IP, UNET, VAE, VAE),
    "WanPipeline": (TEXT, DIT | {"transformer_2"}, VAE, set()),
    "WanVACEPipeline": (TEXT, DIT | {"transformer_2"}, VAE, VAE),
    "ZImageOmniPipeline": (TEXT | {"siglip"}, DIT, VAE, VAE),
}


def found(name: str) -> source.SourceClass:
    cls = source.find(name)
    assert cls is not None
    return cls


@cache
def pipelines() -> tuple[source.SourceClass, ...]:
    classes = [source.find(name) for name in source.pipeline_names()]
    return tuple(cls for cls in classes if cls is not None and source.is_pipeline(cls))


@pytest.mark.parametrize(("name", "reason"), INDIVISIBLE.items())
def test_a_pipeline_that_cannot_be_split_says_why(name: str, reason: str) -> None:
    assert reason_against(found(name)).startswith(reason)


@pytest.mark.parametrize("name", BY_HAND)
def test_components_are_used_as_the_source_reads(name: str) -> None:
    cls = found(name)
    encoders, denoisers, decoders, pictures = BY_HAND[name]
    assert reason_against(cls) == ""
    called = {use.component for use in calls.uses(cls)}
    by_role = {role: {n for n, r in declared_roles(cls).items() if r is role} & called for role in Role}
    assert (by_role[Role.ENCODE], by_role[Role.DENOISE], by_role[Role.DECODE]) == (
        encoders,
        denoisers,
        decoders,
    )
    assert encodes_pictures(cls) == pictures


def is_deprecated(cls: SourceClass) -> bool:
    return ".deprecated." in cls.module or "DeprecatedPipelineMixin" in source.ancestors(cls)


def test_all_pipelines_of_diffusers_are_reported_apart() -> None:
    counted: Counter[str] = Counter()
    for cls in pipelines():
        reason = reason_against(cls)
        kind = "split" if not reason else "no loop" if reason.startswith(NO_LOOP) else "refused"
        counted[f"{kind}{', deprecated' if is_deprecated(cls) else ''}"] += 1
    print(dict(counted))
    maintained = counted["split"] + counted["refused"] + counted["no loop"]
    assert counted["split"] >= 0.85 * maintained, counted  # 0.42.1: 209 of 243
    assert counted["refused"] >= 15, counted
    assert counted["no loop"] >= 10, counted


def test_the_role_of_every_component_that_is_called_in_a_split_pipeline_is_known() -> None:
    unknown = {
        (cls.name, use.component)
        for cls in pipelines()
        if not reason_against(cls)
        for use in calls.uses(cls)
        if use.component not in declared_roles(cls)
        and use.method in ("__call__", "encode", "decode", "generate")
    }
    assert unknown == set()
