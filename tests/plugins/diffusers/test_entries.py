"""A model_index.json chooses among the components of diffusers and transformers, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from model_indexes import INDEXES
from runner_diffusers.pipelines.entries import Entry, entries

from runner.api import UnsupportedModelError

HOSTILE = [
    (["os", "system"], "expected the name"),
    (["os", "System"], "components are of diffusers"),
    (["builtins", "Eval"], "components are of diffusers"),
    (["subprocess", "Popen"], "components are of diffusers"),
    (["diffusers_modules", "Pipeline"], "components are of diffusers"),
    (["transformers_modules", "Model"], "components are of diffusers"),
    (["my_model", "MyTransformer"], "components are of diffusers"),
    (["pipeline.py", "MyPipeline"], "components are of diffusers"),
    (["diffusers.utils", "BaseOutput"], "components are of diffusers"),
    (["diffusers.pipelines.ltx2", "LTX2Vocoder"], "components are of diffusers"),
    (["..ltx2", "LTX2Vocoder"], "components are of diffusers"),
    (["../../tmp", "Evil"], "components are of diffusers"),
    (["/tmp/evil", "Evil"], "components are of diffusers"),
    (["", "AutoencoderKL"], "components are of diffusers"),
    (["__init__", "Evil"], "components are of diffusers"),
    (["torch", "Tensor"], "components are of diffusers"),
    (["onnxruntime.training", "ORTModule"], "components are of diffusers"),
    ([None, "AutoencoderKL"], "expected the name"),
    ([7, "AutoencoderKL"], "expected the name"),
    (["diffusers", "AutoencoderKL.from_pretrained"], "expected the name"),
    (["diffusers", "__builtins__"], "expected the name"),
    (["diffusers", "autoencoder_kl"], "expected the name"),
    (["diffusers", ""], "expected the name"),
    (["diffusers", "NoSuchModel"], "no such class"),
    (["diffusers", "OnnxRuntimeModel"], "not a class of components"),
    (["diffusers", "FluxPipeline"], "not a class of components"),
    (["stable_diffusion", "StableDiffusionPipelineOutput"], "not a class of components"),
    (["transformers", "NoSuchModel"], "no such class"),
    (["transformers", "Trainer"], "not a class of components"),
    (["transformers", "TrainingArguments"], "not a class of components"),
    (["transformers", "pipeline"], "expected the name"),
    (["transformers", "CLIPConfig"], "not a class of components"),
]


@pytest.mark.parametrize(("listed", "message"), HOSTILE)
def test_other_code_is_refused(listed: list[Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        entries({"_class_name": "FluxPipeline", "vae": listed})


@pytest.mark.parametrize("name", ["vae/../..", "a.b", "", "two words"])
def test_a_component_has_a_plain_name(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="no name"):
        entries({name: ["diffusers", "AutoencoderKL"]})


@pytest.mark.parametrize("pipeline", INDEXES)
def test_indexes_of_published_models_are_read(pipeline: str) -> None:
    found = entries(INDEXES[pipeline])
    assert found.keys() == {name for name, listed in INDEXES[pipeline].items() if isinstance(listed, list)}
    for name, entry in found.items():
        assert (entry is None) == (INDEXES[pipeline][name] == [None, None])


@pytest.mark.parametrize(
    ("listed", "entry"),
    [
        (["diffusers", "AutoencoderKL"], Entry("diffusers:AutoencoderKL", has_weights=True)),
        (["ltx2", "LTX2Vocoder"], Entry("diffusers.pipelines.ltx2:LTX2Vocoder", has_weights=True)),
        (["diffusers", "PNDMScheduler"], Entry("diffusers:PNDMScheduler", has_weights=False)),
        (
            ["diffusers", "ClassifierFreeGuidance"],
            Entry("diffusers:ClassifierFreeGuidance", has_weights=False),
        ),
        (["transformers", "T5TokenizerFast"], Entry("transformers:T5TokenizerFast", has_weights=False)),
        (["transformers", "CLIPVisionModel"], Entry("transformers:CLIPVisionModel", has_weights=True)),
        (["transformers", "Qwen3VLProcessor"], Entry("transformers:Qwen3VLProcessor", has_weights=False)),
        (
            ["transformers", "Qwen2_5_VLProcessor"],
            Entry("transformers:Qwen2_5_VLProcessor", has_weights=False),
        ),
        (
            ["transformers", "T5GemmaEncoder"],
            Entry("diffusers.pipelines.prx:T5GemmaEncoder", has_weights=True),
        ),
        (["transformers", "CLIPImageProcessor"], Entry("transformers:CLIPImageProcessor", has_weights=False)),
        (
            ["stable_diffusion", "StableDiffusionSafetyChecker"],
            Entry("diffusers.pipelines.stable_diffusion:StableDiffusionSafetyChecker", has_weights=True),
        ),
    ],
)
def test_a_class_is_named_with_its_module_and_reported_from_those_without_weights(
    listed: list[str], entry: Entry
) -> None:
    assert entries({"part": listed}) == {"part": entry}


def test_values_for_init_are_no_components() -> None:
    index = {"boundary_ratio": 0.9, "_name_or_path": ["a", "B"], "layers": [1, 2], "sizes": ["a", "b", "c"]}
    assert entries(index) == {}
