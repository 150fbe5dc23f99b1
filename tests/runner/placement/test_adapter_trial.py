"""Adapters that fit a model and adapters that do not, checked from headers and configs alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import DEMO, make_flux
from lora_files import FLUX, TEXT, XL, layers, write_kohya_flux, write_lora
from safetensors.torch import load_file, save_file
from tiny_models import checkpoint

from runner.errors import ModelError
from runner.files.header import read_header
from runner.model.checks.adapters import AdapterCheck, AdapterReport, Recipient, Recipients
from runner.placement.adapter_formats import METADATA
from runner.placement.adapter_trial import try_adapter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLASSES = {"transformer": "diffusers:FluxTransformer2DModel", "text_encoder": "transformers:CLIPTextModel"}
BOTH = {"transformer": FLUX, "text_encoder": TEXT}

Tensors = dict[str, torch.Tensor]


def tried(file: Path, *components: str, pipeline: str = "FluxPipeline") -> AdapterReport:
    recipients = {
        name: Recipient(CLASSES[name], json.loads((DEMO / name / "config.json").read_text()))
        for name in components or CLASSES
    }
    return try_adapter(AdapterCheck("the LoRA", read_header(file), Recipients(pipeline, recipients)))


def changed(file: Path, change: Callable[[Tensors], Tensors]) -> Path:
    save_file(change(load_file(file)), file, {"format": "pt"})
    return file


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "style.safetensors", DEMO, BOTH)


def test_a_report_has_the_weights_of_each_layer(style: Path) -> None:
    found = tried(style)
    assert found.notes == ()
    for component, ends in BOTH.items():
        expected = {
            layer.removeprefix("text_model."): (4 * sum(shape), shape[0])
            for layer, shape in layers(DEMO, component, ends)
        }
        assert found.layers[component] == expected


def test_tensors_of_kohyas_trainer_are_split_as_when_they_are_loaded(tmp_path: Path) -> None:
    found = tried(write_kohya_flux(tmp_path / "kohya.safetensors", DEMO), "transformer")
    width = next(shape[0] for _, shape in layers(DEMO, "transformer", ("attn.to_q",)))
    # q, k and v have a whole copy of what goes down each: random numbers are not sparse
    assert found.layers["transformer"]["transformer_blocks.0.attn.to_k"] == (6 * 2 * width, width)


def test_what_diffusers_leaves_out_is_reported(tmp_path: Path) -> None:
    file = write_kohya_flux(tmp_path / "kohya.safetensors", DEMO)
    bias = with_one("lora_unet_double_blocks_0_img_attn_proj.diff_b", 4)
    norm = with_one("lora_unet_double_blocks_0_norm1.norm.diff", 4)
    found = tried(changed(changed(file, bias), norm), "transformer")
    assert any("`diff_b` keys found" in note and "unsupported" in note for note in found.notes)
    assert any("drops its 1 changes of norm layers" in note for note in found.notes)


def test_what_no_stage_loads_is_reported(style: Path) -> None:
    found = tried(style, "transformer")
    assert [*found.layers] == ["transformer"]
    (note,) = found.notes
    assert "weights are for 'text_encoder', which no stage of this manifest loads" in note


def only(component: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: t for n, t in tensors.items() if n.startswith(component)}


def named(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def with_one(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.ones(shape)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (named("transformer.", "unet."), "belong to no layer"),
        (named("transformer.", ""), "belong to no layer"),
        (named("to_q", "to_x"), "weights belong to no layer"),
        (named("transformer_blocks.0", "transformer_blocks.90"), "transformer_blocks.90"),
        (with_one("transformer.proj_out.dora_scale", 4), "it is a DoRA"),
        (with_one("transformer.transformer_blocks.0.attn.to_q.hada_w1_a", 4, 4), "it is a LoHa"),
        (
            with_one("transformer.transformer_blocks.0.attn.to_q.diff_b", 4),
            "1 of its .* to_q.diff_b|to_q.diff_b",
        ),
        (named("text_encoder.", "text_encoders.clip_l.transformer."), "belong to no layer"),
        (with_one("time_text_embed.timestep_embedder.linear_1.lora_A.weight", 4, 4), "1 of its"),
        (lambda t: dict([*t.items()][1:]), "it lacks the other half of 1 of its weights"),
        (lambda t: dict([*t.items()][:-1]), "it lacks the other half of 1 of its weights"),
        (lambda _: {}, "it holds no tensors"),
        (lambda t: {n: x.to(torch.int8) for n, x in t.items()}, "as I8, which is not read here"),
        (lambda t: {n: x[:0] for n, x in t.items()}, "without a number in it"),
        (lambda t: {n: x.to(torch.uint16) for n, x in t.items()}, "which is not read here"),
    ],
)
def test_what_would_be_dropped_is_refused(
    style: Path, change: Callable[[Tensors], Tensors], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        tried(changed(style, change))


def test_matrices_that_a_conversion_takes_nothing_of_are_refused(tmp_path: Path) -> None:
    """Of kohya's names for FLUX, diffusers' own code passes over those that it has no component for."""
    file = write_kohya_flux(tmp_path / "kohya.safetensors", DEMO)
    name = "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_{}.weight"
    changed(changed(file, with_one(name.format("down"), 4, 8)), with_one(name.format("up"), 8, 4))
    with pytest.raises(ModelError, match=rf"would drop 2 of its tensors \(such as {name.format('down')}\)"):
        tried(file, "transformer")


def test_only_what_is_lost_is_named(tiny: Path, tmp_path: Path) -> None:
    """Of kohya's names, diffusers makes older ones of its own for a UNet before it makes those of peft."""
    file = write_lora(tmp_path / "kohya.safetensors", tiny, XL, kohya=True)
    lost = with_one("lora_unet_down_blocks_0_foo.lora_down.weight", 4, 8)
    other = with_one("lora_unet_down_blocks_0_foo.lora_up.weight", 8, 4)
    alpha = with_one("lora_unet_down_blocks_0_foo.alpha")
    with pytest.raises(ModelError, match=r"^2 of its \d+ weights belong to no layer .*down_blocks.0.foo"):
        tried_on_xl(changed(changed(changed(file, lost), other), alpha), tiny)
    with pytest.raises(ModelError, match=r"not been correctly renamed: lora_te1_"):
        tried_on_xl(changed(file, lambda t: {n: x for n, x in t.items() if n.endswith("alpha")}), tiny)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint of SDXL."""
    return checkpoint("sdxl", tmp_path)


def tried_on_xl(file: Path, model: Path) -> AdapterReport:
    classes = {
        "unet": "diffusers:UNet2DConditionModel",
        "text_encoder": "transformers:CLIPTextModel",
        "text_encoder_2": "transformers:CLIPTextModelWithProjection",
    }
    recipients = {
        name: Recipient(cls, json.loads((model / name / "config.json").read_text()))
        for name, cls in classes.items()
    }
    pipeline = Recipients("StableDiffusionXLPipeline", recipients)
    return try_adapter(AdapterCheck("the LoRA", read_header(file), pipeline))


def test_an_adapter_of_a_wider_model_is_refused(tmp_path: Path) -> None:
    other = make_flux(tmp_path / "other", width=128)
    file = write_lora(tmp_path / "wide.safetensors", other, {"transformer": ("ff.net.2",)})
    with pytest.raises(ModelError, match=r"another size of it: .*ff.net.2.lora_[AB].* is .* x .*, and here"):
        tried(file)


def test_an_adapter_that_changes_the_model_itself_is_refused(tmp_path: Path) -> None:
    """Control LoRAs widen the first layer, and diffusers then replaces it."""
    ((layer, (outputs, inputs)),) = layers(DEMO, "transformer", ("x_embedder",))
    down, up = torch.zeros(4, 2 * inputs), torch.zeros(outputs, 4)
    stem = f"transformer.{layer}.lora_"
    save_file({f"{stem}A.weight": down, f"{stem}B.weight": up}, tmp_path / "control.safetensors")
    with pytest.raises(ModelError, match=r"changes weights of the model itself \(x_embedder.weight, "):
        tried(tmp_path / "control.safetensors")


def test_alphas_in_the_metadata_are_taken_and_other_settings_refused(tmp_path: Path) -> None:
    settings = {
        "transformer.r": 4,
        "transformer.lora_alpha": 8,
        "transformer.target_modules": ["transformer_blocks.0.attn.to_q"],
    }
    only_q = {"transformer": ("transformer_blocks.0.attn.to_q",)}

    def written(**more: object) -> Path:
        metadata = {METADATA: json.dumps({**settings, **{f"transformer.{n}": v for n, v in more.items()}})}
        return write_lora(tmp_path / "style.safetensors", DEMO, only_q, metadata=metadata)

    assert tried(written(lora_alpha=2, use_dora=False)).layers
    with pytest.raises(ModelError, match="sets 'use_dora' of peft"):
        tried(written(use_dora=True))
    with pytest.raises(ModelError, match="sets 'init_lora_weights' of peft"):
        tried(written(init_lora_weights="pissa"))
    with pytest.raises(ModelError, match="metadata is damaged"):
        tried(write_lora(tmp_path / "odd.safetensors", DEMO, only_q, metadata={METADATA: "["}))


@pytest.mark.parametrize("pipeline", ["os", "FluxTransformer2DModel", "KandinskyPipeline", ""])
def test_a_pipeline_without_a_loader_is_refused(style: Path, pipeline: str) -> None:
    with pytest.raises(ModelError, match="diffusers"):
        tried(style, pipeline=pipeline)


@pytest.mark.parametrize("number", ["0", "-4", "NaN", "true", '"8"'])
@pytest.mark.parametrize("setting", ["lora_alpha", "r"])
def test_what_scales_an_adapter_is_positive_in_its_metadata_too(
    tmp_path: Path, setting: str, number: str
) -> None:
    settings = f'{{"transformer.{setting}": {number}}}'
    file = write_lora(
        tmp_path / "style.safetensors", DEMO, {"transformer": FLUX}, metadata={METADATA: settings}
    )
    with pytest.raises(ModelError, match=f"its metadata sets 'transformer.{setting}' of peft to .* positive"):
        tried(file)
