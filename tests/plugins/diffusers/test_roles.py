"""Names tell the role of components; where they tell none, the class does, or the model is refused."""

from __future__ import annotations

import pytest
from runner_diffusers.pipelines import source
from runner_diffusers.pipelines.calls import init_parameters
from runner_diffusers.pipelines.entries import entry
from runner_diffusers.pipelines.roles import EXCEPTIONS, Role, declared_roles, named_role, role_of

from runner.api import UnsupportedModelError

ROLES = {
    Role.ENCODE: "text_encoder text_encoder_4 image_encoder prior_text_encoder connectors projection_model siglip "
    "vision_language_encoder prompt_enhancer prompt_enhancer_head pe bert condition_encoder audio_tokenizer",
    Role.DENOISE: "transformer transformer_2 unet image_unet controlnet prior prior_prior adapter motion_adapter "
    "unconditional_transformer",
    Role.DECODE: "vae audio_vae vocoder movq vqvae vqgan safety_checker watermarker sound_tokenizer decoder",
}


@pytest.mark.parametrize("role", ROLES)
def test_names_tell_roles(role: Role) -> None:
    assert {named_role("AnyPipeline", name) for name in ROLES[role].split()} == {role}


def test_exceptions_are_about_pipelines_and_components_that_exist() -> None:
    for pipeline, name in EXCEPTIONS:
        cls = source.find(pipeline)
        assert cls is not None, pipeline
        assert name in init_parameters(cls)
        assert EXCEPTIONS[pipeline, name] is not named_role("AnyPipeline", name)


def test_what_has_no_weights_is_auxiliary_whatever_its_name() -> None:
    tokenizer = entry("text_encoder", "transformers", "CLIPTokenizer")
    assert role_of("AnyPipeline", "text_encoder", tokenizer) is Role.AUXILIARY


@pytest.mark.parametrize(
    ("library", "cls", "role"),
    [
        ("diffusers", "AutoencoderKL", Role.DECODE),
        ("diffusers", "ControlNetModel", Role.DENOISE),
        ("diffusers", "FluxTransformer2DModel", Role.DENOISE),
        ("transformers", "CLIPTextModel", Role.ENCODE),
        ("transformers", "UMT5EncoderModel", Role.ENCODE),
    ],
)
def test_an_unknown_name_has_the_role_of_its_class(library: str, cls: str, role: Role) -> None:
    assert role_of("AnyPipeline", "another_part", entry("another_part", library, cls)) is role


def test_a_component_without_a_role_is_refused() -> None:
    part = entry("another_part", "diffusers", "IFWatermarker") if source.find("IFWatermarker") else None
    part = part or entry("another_part", "transformers", "ResNetModel")
    with pytest.raises(
        UnsupportedModelError, match=r"another_part .* of AnyPipeline: neither its name nor its class"
    ):
        role_of("AnyPipeline", "another_part", part)


def test_annotations_tell_what_has_no_weights() -> None:
    omni = source.find("ZImageOmniPipeline")
    assert omni is not None
    roles = declared_roles(omni)
    assert (roles["siglip"], roles["siglip_processor"]) == (Role.ENCODE, Role.AUXILIARY)
