"""Classes are found as Python would import them, in the files of the installed libraries."""

from __future__ import annotations

import pytest
from runner_diffusers.pipelines import source


def found(name: str, module: str = "diffusers") -> source.SourceClass:
    cls = source.find(name, module)
    assert cls is not None
    return cls


@pytest.mark.parametrize(
    ("name", "module", "origin"),
    [
        ("FluxPipeline", "diffusers", "diffusers.pipelines.flux.pipeline_flux"),
        ("AutoencoderKLFlux2", "diffusers", "diffusers.models.autoencoders.autoencoder_kl_flux2"),
        ("UniPCMultistepScheduler", "diffusers", "diffusers.schedulers.scheduling_unipc_multistep"),
        ("LTX2Vocoder", "diffusers.pipelines.ltx2", "diffusers.pipelines.ltx2.vocoder"),
    ],
)
def test_a_class_is_found_where_it_is_defined(name: str, module: str, origin: str) -> None:
    assert found(name, module).module == origin


@pytest.mark.parametrize(
    "name", ["os", "torch", "randn_tensor", "NoSuchPipeline", "", "__builtins__", "logging"]
)
def test_what_is_no_class_of_diffusers_is_not_found(name: str) -> None:
    assert source.find(name) is None


def test_inherited_methods_and_attributes_are_found() -> None:
    safe = found("WanPipeline")
    assert source.attribute(safe, "_optional_components") == ["transformer", "transformer_2"]
    inherited = found("KolorsPAGPipeline")  # from KolorsPipeline
    assert source.method(inherited, "encode_prompt") is not None


def test_the_name_of_a_pipeline_counts_only_if_it_can_be_called() -> None:
    assert source.is_pipeline(found("WanPipeline"))
    assert not source.is_pipeline(found("DiffusionPipeline"))
    assert not source.is_pipeline(found("AutoencoderKL"))


@pytest.mark.parametrize("name", ["ltx2", "stable_diffusion", "audioldm2"])
def test_folders_of_pipelines_are_modules(name: str) -> None:
    assert source.pipeline_folder(name) == f"diffusers.pipelines.{name}"


@pytest.mark.parametrize(
    "name", ["os", "..", "../models", "pipeline_utils", "flux.pipeline_flux", "__pycache__", ""]
)
def test_nothing_else_is_a_folder_of_pipelines(name: str) -> None:
    assert source.pipeline_folder(name) is None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CLIPTextModel", "modeling_clip.py"),
        ("T5TokenizerFast", "tokenization_t5.py"),
        ("Qwen2_5_VLForConditionalGeneration", "modeling_qwen2_5_vl.py"),
        ("SiglipImageProcessorFast", "image_processing_siglip.py"),
        ("PreTrainedTokenizerFast", "__init__.py"),
    ],
)
def test_files_of_transformers_are_found_by_what_they_export(name: str, file: str) -> None:
    path = source.transformers_file(name)
    assert path is not None
    assert path.name == file


@pytest.mark.parametrize("name", ["NoSuchModel", "__builtins__", "os.path", "", "clip_loss"])
def test_what_transformers_does_not_export_is_not_found(name: str) -> None:
    assert source.transformers_file(name) is None


def test_attributes_of_transformers_classes_are_inherited_in_their_file() -> None:
    assert source.transformers_attribute("T5EncoderModel", "_keep_in_fp32_modules") == ["wo"]
