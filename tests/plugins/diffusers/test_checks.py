"""What the pipeline's own checks would refuse or ignore is reported without loading anything."""

from __future__ import annotations

from typing import Any

import pytest
from model_indexes import facts_of
from runner_diffusers.pipelines import checks, params

from runner.api import Facts, Problem

VAES = {
    "WanPipeline": {"_class_name": "AutoencoderKLWan"},
    "WanImageToVideoPipeline": {"_class_name": "AutoencoderKLWan"},
    "LTXPipeline": {"_class_name": "AutoencoderKLLTXVideo"},
}
FOUR_LEVELS = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512]}
QWEN_LAYERED = {"index": "FluxPipeline", "processor": ["transformers", "Qwen2VLProcessor"]}


def reported(
    pipeline: str, encode: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **values: Any
) -> list[Problem]:
    """The problems of a denoise stage; its encode stage has the same values but for `encode`."""
    facts = facts_of(pipeline, **(model or {}))
    first = params.encode(facts)
    shared = {name: value for name, value in values.items() if name in first.model_fields}
    given = Facts(
        {"vae": VAES.get(pipeline, FOUR_LEVELS)}, {"encoded": first(**{**shared, **(encode or {})})}
    )
    return list(checks.denoise(params.denoise(facts)(**values), given))


def messages(problems: list[Problem]) -> list[tuple[str, str, bool]]:
    return [(one.message, one.parameter, one.warning) for one in problems]


@pytest.mark.parametrize(
    ("pipeline", "values", "message", "parameter"),
    [
        (
            "WanImageToVideoPipeline",
            {"image": "a.png", "height": 100, "width": 832},
            "WanImageToVideoPipeline: `height` and `width` have to be divisible by 16 but are 100 and 832.",
            "height",
        ),
        (
            "LTXPipeline",
            {"width": 500},
            "LTXPipeline: `height` and `width` have to be divisible by 32 but are 512 and 500.",
            "width",
        ),
        (
            "StableDiffusionXLPipeline",
            {"height": 1001},
            "StableDiffusionXLPipeline: `height` and `width` have to be divisible by 8 but are 1001 and ....",
            "height",
        ),
        (
            "FluxPipeline",
            {"max_sequence_length": 600},
            "FluxPipeline: `max_sequence_length` cannot be greater than 512 but is 600",
            "max_sequence_length",
        ),
        (
            "StableDiffusionXLInpaintPipeline",
            {"image": "a.png", "mask_image": "b.png", "strength": 1.5},
            "StableDiffusionXLInpaintPipeline: The value of strength should in [0.0, 1.0] but is 1.5",
            "strength",
        ),
    ],
)
def test_what_check_inputs_refuses_is_refused_in_its_words(
    pipeline: str, values: dict[str, Any], message: str, parameter: str
) -> None:
    assert messages(reported(pipeline, prompt="a fox", **values)) == [(message, parameter, False)]


@pytest.mark.parametrize(
    "pipeline", ["WanPipeline", "FluxPipeline", "StableDiffusionXLPipeline", "LTXPipeline"]
)
def test_a_missing_prompt_is_reported(pipeline: str) -> None:
    assert (f"prompt is missing: {pipeline} needs it", "prompt", False) in messages(reported(pipeline))


@pytest.mark.parametrize(
    "pipeline",
    [
        "WanPipeline",
        "FluxPipeline",
        "StableDiffusionXLPipeline",
        "LTX2Pipeline",
        "SanaPipeline",
        "ZImagePipeline",
    ],
)
def test_defaults_and_a_prompt_are_no_problem(pipeline: str) -> None:
    assert reported(pipeline, prompt="") == []


def test_a_missing_picture_is_reported_once() -> None:
    found = reported("StableDiffusionXLInpaintPipeline", prompt="a fox", image="a.png")
    assert [one.parameter for one in found] == ["mask_image"]
    assert 'such as mask_image = "picture.png"' in found[0].message


def test_a_picture_to_be_divided_into_layers_cannot_be_missing() -> None:
    """The signature has a default for it, with which the pipeline fails."""
    (found,) = reported("QwenImageLayeredPipeline", model=QWEN_LAYERED, prompt="a fox")
    assert (found.parameter, found.warning) == ("image", False)
    assert reported("QwenImageLayeredPipeline", model=QWEN_LAYERED, prompt="a fox", image="a.png") == []


def test_different_values_of_a_keyword_are_refused() -> None:
    (found,) = reported("WanPipeline", encode={"guidance_scale": 3.0}, prompt="a fox", guidance_scale=4.0)
    assert found.parameter == "guidance_scale"
    assert "4.0 here, and 3.0 in the stage before" in found.message
    assert "[with]" in found.message


def test_decode_has_the_files_of_the_other_stages() -> None:
    facts = facts_of("WanImageToVideoPipeline")
    first = params.denoise(facts).model_validate({"image": "a.png", "prompt": "a fox"})
    other, same = (params.decode(facts).model_validate({"image": name}) for name in ("b.png", "a.png"))
    assert [one.parameter for one in checks.decode(other, Facts({}, {"denoised": first}))] == ["image"]
    assert list(checks.decode(same, Facts({}, {"denoised": first}))) == []


def test_values_of_the_index_count() -> None:
    (found,) = reported("WanPipeline", model={"boundary_ratio": None}, prompt="a fox", guidance_scale_2=3.0)
    assert "`guidance_scale_2` is only supported when" in found.message
    assert reported("WanPipeline", prompt="a fox", guidance_scale_2=3.0) == []


def test_what_a_pipeline_would_change_or_ignore_is_a_warning() -> None:
    distilled = messages(reported("Flux2KleinPipeline", prompt="a fox", guidance_scale=3.0))
    assert (
        "Flux2KleinPipeline: Guidance scale 3.0 is ignored for step-wise distilled models.",
        "guidance_scale",
        True,
    ) in distilled
    assert reported("Flux2KleinPipeline", prompt="a fox") == []  # its own default is no news
    frames = reported("WanPipeline", prompt="a fox", num_frames=80)
    assert [(one.parameter, one.warning) for one in frames] == [("num_frames", True)]


def test_a_negative_prompt_without_guidance_is_a_warning() -> None:
    (found,) = reported("WanPipeline", prompt="a fox", negative_prompt="blurry", guidance_scale=1.0)
    assert (found.parameter, found.warning) == ("negative_prompt", True)
    assert reported("WanPipeline", prompt="a fox", negative_prompt="blurry") == []


def test_nothing_is_concluded_of_what_is_not_known() -> None:
    facts = facts_of("StableDiffusionXLPipeline")  # without the VAE's config, the divisor may be another
    bound = params.denoise(facts).model_validate({"prompt": "a fox", "height": 1016})
    assert list(checks.denoise(bound, Facts())) == []
