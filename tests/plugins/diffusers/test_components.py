"""Each stage has its own components with weights; of the others, their configs and what the pipeline reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from model_indexes import INDEXES, facts_of
from runner_diffusers.pipelines import components

from runner.api import ModelFacts, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.api import Component

STAGES: dict[str, Callable[[ModelFacts], Sequence[Component]]] = {
    "encode": components.encode,
    "denoise": components.denoise,
    "decode": components.decode,
}


def loaded(stage: str, model: ModelFacts) -> set[str]:
    return {one.name for one in STAGES[stage](model) if not one.config_only}


def shells(stage: str, model: ModelFacts) -> dict[str, Component]:
    return {one.name: one for one in STAGES[stage](model) if one.config_only}


@pytest.mark.parametrize("pipeline", INDEXES)
def test_weights_are_loaded_in_one_stage_and_known_in_all(pipeline: str) -> None:
    model = facts_of(pipeline)
    stages = {name: {one.name for one in stage(model)} for name, stage in STAGES.items()}
    weighty = set(shells("encode", model)) | set(shells("denoise", model))
    for name in weighty:
        assert all(name in known for known in stages.values())
        owners = [stage for stage in STAGES if name in loaded(stage, model)]
        assert len(owners) == 1 or (owners == ["encode", "decode"] and name == "vae")
    assert "scheduler" in stages["encode"] & stages["denoise"] & stages["decode"]


@pytest.mark.parametrize("pipeline", INDEXES)
def test_tokenizers_are_loaded_for_encoding_alone(pipeline: str) -> None:
    model = facts_of(pipeline)
    tokenizers = {name for name in INDEXES[pipeline] if "tokenizer" in name}
    assert tokenizers <= loaded("encode", model)
    assert not tokenizers & (loaded("denoise", model) | loaded("decode", model))


def test_wan_denoises_with_two_transformers() -> None:
    model = facts_of("WanPipeline")
    assert loaded("encode", model) == {"text_encoder", "tokenizer", "scheduler"}
    assert loaded("denoise", model) == {"transformer", "transformer_2", "scheduler"}
    assert loaded("decode", model) == {"vae", "scheduler"}
    assert components.init_values(model) == {"boundary_ratio": 0.875, "expand_timesteps": False}


def test_pictures_are_encoded_with_the_vae_in_the_encode_stage() -> None:
    model = facts_of("WanImageToVideoPipeline")
    assert loaded("encode", model) >= {"image_encoder", "vae", "text_encoder"}
    assert loaded("denoise", model) == {"transformer", "scheduler", "image_processor"}
    assert "vae" in shells("encode", facts_of("WanPipeline"))


def test_sound_is_decoded_with_its_own_vae_and_vocoder() -> None:
    model = facts_of("LTX2Pipeline")
    assert loaded("encode", model) == {"text_encoder", "tokenizer", "connectors", "scheduler"}
    assert loaded("decode", model) == {"vae", "audio_vae", "vocoder", "scheduler"}
    classes = {one.name: one.cls for one in components.decode(model)}
    assert classes["vocoder"] == "diffusers.pipelines.ltx2:LTX2Vocoder"
    assert classes["vae"] == "diffusers:AutoencoderKLLTX2Video"


def test_guiders_and_processors_are_in_every_stage() -> None:
    for stage in STAGES:
        assert {"guider", "ocr_guider", "scheduler"} <= loaded(stage, facts_of("HunyuanImagePipeline"))
        assert "feature_extractor" in loaded(stage, facts_of("StableDiffusionPipeline"))


def test_a_safety_checker_runs_where_pictures_are_decoded() -> None:
    model = facts_of("StableDiffusionPipeline")
    assert loaded("decode", model) == {"vae", "safety_checker", "feature_extractor", "scheduler"}
    assert "safety_checker" not in loaded(
        "decode", facts_of("StableDiffusionPipeline", safety_checker=[None, None])
    )
    assert "safety_checker" not in loaded("decode", facts_of("StableDiffusionPipeline", safety_checker=...))


@pytest.mark.parametrize(
    ("pipeline", "component", "patterns"),
    [
        ("Flux2KleinPipeline", "vae", ("bn.*",)),
        ("LTXPipeline", "vae", ("latents_mean", "latents_std")),
        ("LTX2Pipeline", "audio_vae", ("latents_mean", "latents_std")),
        ("WanPipeline", "vae", ()),
        ("FluxPipeline", "vae", ()),
    ],
)
def test_tensors_that_the_pipeline_reads_of_a_vae_are_read_where_it_is_not_loaded(
    pipeline: str, component: str, patterns: tuple[str, ...]
) -> None:
    assert shells("denoise", facts_of(pipeline))[component].buffers == patterns


def test_a_parameter_that_the_pipeline_reads_counts_as_well() -> None:
    index = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2TokenizerFast"],
        "transformer": ["diffusers", "AceStepTransformer1DModel"],
        "condition_encoder": ["ace_step", "AceStepConditionEncoder"],
        "vae": ["diffusers", "AutoencoderOobleck"],
    }
    model = ModelFacts({}, {}, index, "AceStepPipeline")
    assert shells("denoise", model)["condition_encoder"].buffers == ("null_condition_emb", "silence_latent")


def test_weights_that_a_class_keeps_in_float32_are_reported() -> None:
    encoders = {one.name: one.float32 for one in components.encode(facts_of("FluxPipeline"))}
    assert encoders["text_encoder_2"] == {"float16": ("wo",)}
    transformer = {one.name: one.float32 for one in components.denoise(facts_of("WanPipeline"))}[
        "transformer"
    ]
    assert "time_embedder" in transformer["bfloat16"]
    assert transformer["bfloat16"] == transformer["float16"]


def test_another_pipeline_takes_those_components_that_it_knows() -> None:
    text = facts_of("WanPipeline")
    video = facts_of("WanVideoToVideoPipeline", index="WanPipeline", transformer_2=[None, None])
    assert loaded("denoise", text) == {"transformer", "transformer_2", "scheduler"}
    assert {one.name for one in components.denoise(video)} == {
        "text_encoder",
        "transformer",
        "vae",
        "scheduler",
    }
    assert components.init_values(video) == {}


def test_components_that_another_pipeline_needs_beyond_are_named() -> None:
    model = facts_of("StableDiffusionXLControlNetPipeline", index="StableDiffusionXLPipeline")
    with pytest.raises(
        UnsupportedModelError, match=r"needs controlnet, .*\[model.components\].*controlnet = "
    ):
        components.denoise(model)


def test_a_component_from_elsewhere_has_the_class_that_its_config_names() -> None:
    model = facts_of(
        "StableDiffusionXLControlNetPipeline",
        index="StableDiffusionXLPipeline",
        configs={"controlnet": {"_class_name": "ControlNetModel"}},
    )
    classes = {one.name: one.cls for one in components.denoise(model)}
    assert classes["controlnet"] == "diffusers:ControlNetModel"
    llama = {"text_encoder_4": {"architectures": ["LlamaForCausalLM"]}}
    tokens = {"tokenizer_4": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    dream = facts_of("HiDreamImagePipeline", configs={**llama, **tokens}, text_encoder_4=..., tokenizer_4=...)
    found = {one.name: one.cls for one in components.encode(dream)}
    assert found["text_encoder_4"] == "transformers:LlamaForCausalLM"
    assert found["tokenizer_4"] == "transformers:PreTrainedTokenizerFast"


def test_a_component_from_elsewhere_may_be_of_another_class() -> None:
    model = facts_of("StableDiffusionXLPipeline", configs={"vae": {"_class_name": "AutoencoderTiny"}})
    assert {one.name: one.cls for one in components.decode(model)}["vae"] == "diffusers:AutoencoderTiny"


def test_a_class_that_diffusers_loads_as_another_is_that_one() -> None:
    old = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm_single"}
    listed = ["diffusers", "Transformer2DModel"]
    model = facts_of("PixArtSigmaPipeline", transformer=listed, configs={"transformer": old})
    (transformer,) = (one for one in components.denoise(model) if one.name == "transformer")
    assert (transformer.cls, transformer.accepts) == (
        "diffusers:PixArtTransformer2DModel",
        ("Transformer2DModel",),
    )


def test_kolors_has_encoders_in_its_own_folder() -> None:
    index = {
        **INDEXES["StableDiffusionXLPipeline"],
        "text_encoder": ["kolors", "ChatGLMModel"],
        "tokenizer": ["kolors", "ChatGLMTokenizer"],
    }
    classes = {one.name: one.cls for one in components.encode(ModelFacts({}, {}, index, "KolorsPipeline"))}
    assert classes["text_encoder"] == "diffusers.pipelines.kolors:ChatGLMModel"
    assert classes["tokenizer"] == "diffusers.pipelines.kolors:ChatGLMTokenizer"


def test_hidream_without_its_llama_says_what_is_missing() -> None:
    with pytest.raises(UnsupportedModelError, match="needs text_encoder_4, tokenizer_4"):
        components.encode(facts_of("HiDreamImagePipeline", text_encoder_4=..., tokenizer_4=...))


def test_the_config_of_a_component_from_elsewhere_chooses_no_other_code() -> None:
    configs = {"controlnet": {"_class_name": "FluxPipeline"}}
    model = facts_of(
        "StableDiffusionXLControlNetPipeline", index="StableDiffusionXLPipeline", configs=configs
    )
    with pytest.raises(UnsupportedModelError, match="not a class of components"):
        components.denoise(model)


def test_objects_that_pipelines_use_outside_of_encoding_are_in_every_stage() -> None:
    index = {
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    model = ModelFacts({}, {}, index, "MarigoldDepthPipeline")  # tokenizes in __call__ itself
    assert "tokenizer" in loaded("decode", model)


def test_a_unet_that_would_be_rebuilt_is_refused() -> None:
    index = {
        **INDEXES["StableDiffusionPipeline"],
        "motion_adapter": ["diffusers", "MotionAdapter"],
    }
    with pytest.raises(
        UnsupportedModelError, match=r"makes UNetMotionModel of this model's unet.*save_pretrained"
    ):
        components.denoise(ModelFacts({}, {}, index, "AnimateDiffPipeline"))
    made = {**index, "unet": ["diffusers", "UNetMotionModel"]}
    assert "unet" in loaded("denoise", ModelFacts({}, {}, made, "AnimateDiffPipeline"))


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("", "no model_index.json that names one"),
        ("WanPipelin", "no pipeline WanPipelin; did you mean WanPipeline?"),
        ("os", "no pipeline os"),
        ("AutoencoderKL", "no pipeline AutoencoderKL"),
        ("FluxModularPipeline", "no pipeline FluxModularPipeline"),
        ("../evil", "no pipeline"),
        ("WanAnimatePipeline", "WanAnimatePipeline cannot be split into encode, denoise and decode: vae"),
        ("KandinskyV22Pipeline", "needs image_embeds, negative_image_embeds: tensors of another pipeline"),
    ],
)
def test_a_pipeline_that_cannot_be_taken_is_refused(pipeline: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError) as raised:
        components.encode(ModelFacts({}, {}, INDEXES["WanPipeline"], pipeline))
    assert message in str(raised.value)
