"""Keywords that manifests can set have the types and defaults of the pipeline's own signature."""

from __future__ import annotations

import ast
import inspect
from typing import Any, Literal

import diffusers
import pytest
from model_indexes import INDEXES
from pydantic import FiniteFloat, JsonValue
from runner_diffusers.media.formats import Kind
from runner_diffusers.pipelines import source
from runner_diffusers.pipelines.signature import (
    FileKind,
    Keyword,
    keywords,
    made,
    tensors_needed,
    type_of,
)

from runner.api import InputFile, InputFolder


def keyword(pipeline: str, name: str) -> Keyword:
    return next(one for one in keywords(found(pipeline)) if one.name == name)


def found(name: str) -> source.SourceClass:
    cls = source.find(name)
    assert cls is not None
    return cls


@pytest.mark.parametrize(
    ("pipeline", "name", "kind", "default"),
    [
        ("WanPipeline", "prompt", str, None),
        ("WanPipeline", "num_frames", int, 81),
        ("WanPipeline", "guidance_scale", FiniteFloat, 5.0),
        ("WanPipeline", "attention_kwargs", dict[str, JsonValue], None),
        ("StableDiffusionXLPipeline", "original_size", tuple[int, int], None),
        ("StableDiffusionXLPipeline", "crops_coords_top_left", tuple[int, int], (0, 0)),
        ("StableDiffusionXLPipeline", "timesteps", list[int], None),
        ("StableDiffusionXLPipeline", "negative_prompt_2", str, None),
        (
            "StableDiffusionXLControlNetPipeline",
            "controlnet_conditioning_scale",
            FiniteFloat | list[FiniteFloat],
            1.0,
        ),
        ("StableDiffusionXLControlNetPipeline", "guess_mode", bool, False),
        ("Flux2KleinPipeline", "text_encoder_out_layers", tuple[int, ...], (9, 18, 27)),
        ("SanaPipeline", "complex_human_instruction", list[str], ...),
        ("FluxKontextPipeline", "max_area", int, 1024**2),
        ("AceStepPipeline", "bpm", int, None),
        ("AceStepPipeline", "lyrics", str, ""),
        ("StableAudioPipeline", "audio_end_in_s", FiniteFloat, None),
        ("HiDreamImagePipeline", "prompt_4", str, None),
        ("SanaWMPipeline", "height", int, 704),  # a constant of the module
    ],
)
def test_types_and_defaults_are_those_of_the_source(
    pipeline: str, name: str, kind: Any, default: Any
) -> None:
    one = keyword(pipeline, name)
    assert one.type == kind
    assert default is ... or one.default == default
    assert one.file is None


@pytest.mark.parametrize(
    ("pipeline", "name", "kind", "several", "required"),
    [
        ("WanImageToVideoPipeline", "image", FileKind.PICTURE, True, True),
        ("WanImageToVideoPipeline", "last_image", FileKind.PICTURE, False, False),
        ("WanVideoToVideoPipeline", "video", FileKind.CLIP, True, False),
        ("WanVACEPipeline", "video", FileKind.CLIP, True, False),
        ("WanVACEPipeline", "mask", FileKind.CLIP, True, False),
        ("WanVACEPipeline", "reference_images", FileKind.PICTURE, True, False),
        ("StableDiffusionXLInpaintPipeline", "mask_image", FileKind.PICTURE, True, False),
        ("FluxFillPipeline", "image", FileKind.PICTURE, False, False),
        ("FluxFillPipeline", "mask_image", FileKind.PICTURE, False, False),
        ("FluxControlNetPipeline", "control_image", FileKind.PICTURE, True, False),
        ("Flux2KleinPipeline", "image", FileKind.PICTURE, True, False),
        ("AnimateDiffVideoToVideoPipeline", "video", FileKind.CLIP, True, False),
        ("StableAudioPipeline", "initial_audio_waveforms", FileKind.SOUND, False, False),
        ("AceStepPipeline", "reference_audio", FileKind.SOUND, False, False),
    ],
)
def test_pictures_clips_and_sounds_are_files(
    pipeline: str, name: str, kind: FileKind, several: bool, required: bool
) -> None:
    one = keyword(pipeline, name)
    assert (one.file, one.required) == (kind, required)
    file: Any = InputFolder if kind is FileKind.CLIP else InputFile
    assert one.type == (file | list[InputFile] if several else file)


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("WanPipeline", name)
        for name in (
            "generator",
            "latents",
            "prompt_embeds",
            "output_type",
            "return_dict",
            "num_videos_per_prompt",
        )
    ]
    + [
        ("WanPipeline", "callback_on_step_end"),
        ("WanPipeline", "callback_on_step_end_tensor_inputs"),
        ("FluxPipeline", "num_images_per_prompt"),
        ("FluxPipeline", "ip_adapter_image_embeds"),
        ("FluxFillPipeline", "masked_image_latents"),
        ("Flux2KleinPipeline", "negative_prompt_embeds"),  # annotated as text
        ("AudioDiffusionPipeline", "audio_file"),
        ("BriaFiboEditPipeline", "seed"),
    ],
)
def test_what_no_manifest_can_hold_or_runner_sets_is_not_offered(pipeline: str, name: str) -> None:
    assert name not in {one.name for one in keywords(found(pipeline))}


def test_descriptions_are_the_first_sentence_of_the_docstring() -> None:
    assert keyword("WanPipeline", "height").description == "the height in pixels of the generated image"
    assert keyword("SanaPipeline", "num_inference_steps").description == "the number of denoising steps"


def test_most_keywords_of_well_known_pipelines_are_described() -> None:
    for name in (
        "FluxPipeline",
        "WanImageToVideoPipeline",
        "StableDiffusionXLInpaintPipeline",
        "LTX2Pipeline",
    ):
        offered = keywords(found(name))
        assert sum(bool(one.description) for one in offered) >= 0.9 * len(offered), name


@pytest.mark.parametrize(
    ("pipeline", "kinds"),
    [
        ("FluxPipeline", {Kind.PICTURE}),
        ("StableCascadePriorPipeline", set()),
        ("Kandinsky5T2IPipeline", {Kind.PICTURE}),
        ("MarigoldDepthPipeline", {Kind.PICTURE}),
        ("QwenImageLayeredPipeline", {Kind.LAYERS}),
        ("WanPipeline", {Kind.CLIP}),
        ("LTX2Pipeline", {Kind.CLIP, Kind.SOUND}),
        ("StableVideoDiffusionPipeline", {Kind.CLIP}),
        ("StableAudioPipeline", {Kind.SOUND}),
        ("AceStepPipeline", {Kind.SOUND}),
    ],
)
def test_what_a_pipeline_makes_is_reported_by_what_it_returns(pipeline: str, kinds: set[Kind]) -> None:
    assert made(found(pipeline)) == kinds


def test_pipelines_that_need_tensors_of_others_name_them() -> None:
    assert tensors_needed(found("KandinskyV22Pipeline")) == ("image_embeds", "negative_image_embeds")
    assert tensors_needed(found("WanPipeline")) == ()


def test_literals_stay_literals() -> None:
    assert type_of(ast.parse("Literal['a', 'b'] | None", mode="eval").body) == Literal["a", "b"]


@pytest.mark.parametrize("name", INDEXES)
def test_the_source_says_what_the_imported_pipeline_does(name: str) -> None:
    call = inspect.signature(getattr(diffusers, name).__call__).parameters
    for one in keywords(found(name)):
        own = call[one.name].default
        assert (own is inspect.Parameter.empty) == one.required
        assert one.required or own == one.default
    offered = {one.name for one in keywords(found(name))}
    assert {"prompt", "height", "width", "num_inference_steps", "guidance_scale"} & call.keys() <= offered
