"""Weights of other programs and quantised ones: pictures are equal to the bit to diffusers' in one process.

Each is made resident, and streamed with two items in lockstep that are interrupted and resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
import transformers
from bitsandbytes_weights import FORMS, config_of, load_quantised, write_quantised
from pipeline_cases import CASES, manifest, reference
from single_files import (
    as_zimage_original,
    products,
    scaled_fp8,
    weights_of,
    write,
    write_gguf,
)
from stages_here import equal, made, run_stages
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

from runner.events import Finished, Resumed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Weigh = Callable[[Path, Path, torch.dtype], "Weighed"]

SCHEMES = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}
SEEDS = (7, 8)
STREAM = 'placement = "stream"\n'
CLASSES = {
    "flux": diffusers.FluxTransformer2DModel,
    "qwen": diffusers.QwenImageTransformer2DModel,
    "sdxl": diffusers.UNet2DConditionModel,
    "zimage": diffusers.ZImageTransformer2DModel,
    "wan21": diffusers.WanTransformer3DModel,
}


@dataclass(frozen=True)
class Weighed:
    """Weights for a manifest, and the same as diffusers loads them."""

    components: Mapping[str, Any]
    parts: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    """More lines of stages."""


def ggml(kind: str) -> Weigh:
    def weigh(model: Path, folder: Path, dtype: torch.dtype) -> Weighed:
        weights = weights_of(model / "transformer")
        if model.name == "zimage":
            weights = as_zimage_original(weights)
        file = write_gguf(folder / "some.gguf", weights, kind)
        quantised = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
        return _single(file, model, dtype, quantization_config=quantised)

    return weigh


def original(model: Path, folder: Path, dtype: torch.dtype) -> Weighed:
    weights = as_zimage_original(weights_of(model / "transformer"))
    return _single(write(folder / "original.safetensors", weights), model, dtype)


def _single(file: Path, model: Path, dtype: torch.dtype, **options: Any) -> Weighed:
    config = str(model / "transformer")
    theirs = CLASSES[model.name].from_single_file(str(file), config=config, torch_dtype=dtype, **options)
    return Weighed({"transformer": theirs}, {"transformer": str(file)})


def scaled(name: str, *, rows: bool) -> Weigh:
    """Diffusers does not read these: it loads the products."""

    def weigh(model: Path, folder: Path, dtype: torch.dtype) -> Weighed:
        weights = scaled_fp8(weights_of(model / "transformer"), name, rows=rows)
        file = write(folder / "scaled.safetensors", weights)
        plain = products(weights, name)
        if model.name == "zimage":
            file = write(folder / "scaled.safetensors", _renamed(weights, name))
        config = CLASSES[model.name].load_config(model / "transformer")
        theirs = CLASSES[model.name].from_config(config).to(dtype)
        theirs.load_state_dict({key: weight.to(dtype) for key, weight in plain.items()})
        return Weighed({"transformer": theirs.eval()}, {"transformer": str(file)})

    return weigh


def _renamed(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """With Z-Image's fused matrices, whose scales are one for each row."""
    mark = {"scaled_fp8": weights["scaled_fp8"]}
    plain = {k: w.float() for k, w in weights.items() if k not in mark and not k.endswith(name)}
    scales = {k.removesuffix(name) + "weight": w for k, w in weights.items() if k.endswith(name)}
    fused, of_rows = as_zimage_original(plain), as_zimage_original(scales)
    made = {k: w.to(torch.float8_e4m3fn) if k in of_rows else w for k, w in fused.items()}
    return mark | made | {k.removesuffix("weight") + name: w for k, w in of_rows.items()}


def stored(scheme: str) -> Weigh:
    """A folder that diffusers has quantised and saved."""

    def weigh(model: Path, folder: Path, dtype: torch.dtype) -> Weighed:
        _quantised(model, scheme, dtype).save_pretrained(folder / "quantised")
        theirs = CLASSES[model.name].from_pretrained(folder / "quantised", torch_dtype=dtype)
        return Weighed({"transformer": theirs}, {"transformer": str(folder / "quantised")})

    return weigh


def by_bitsandbytes(form: str, encoder: str = "") -> Weigh:
    """A folder with what denoises, as bitsandbytes has quantised it, and perhaps one with a text encoder."""

    def weigh(model: Path, folder: Path, dtype: torch.dtype) -> Weighed:
        denoiser, cls = "unet" if model.name == "sdxl" else "transformer", CLASSES[model.name]
        made = write_quantised(model / denoiser, folder / denoiser, cls, config_of(form), dtype)
        components, parts = {denoiser: load_quantised(made, cls, dtype)}, {denoiser: str(made)}
        if encoder:
            config, t5 = transformers.BitsAndBytesConfig(**FORMS[form]), transformers.T5EncoderModel
            quantised = t5.from_pretrained(model / encoder, quantization_config=config, dtype=dtype)
            quantised.save_pretrained(folder / encoder)
            parts[encoder] = str(folder / encoder)
            components[encoder] = t5.from_pretrained(folder / encoder, dtype=dtype).eval()
        lines = {"encode": STREAM} if encoder else {}
        return Weighed(components, parts, lines)

    return weigh


def quantized(scheme: str) -> Weigh:
    """Quantised by the run, and the text encoder too."""

    def weigh(model: Path, _folder: Path, dtype: torch.dtype) -> Weighed:
        components: dict[str, Any] = {"transformer": _quantised(model, scheme, dtype)}
        lines = {"denoise": f'quantize = "{scheme}"\n'}
        if model.name == "flux":
            config = transformers.TorchAoConfig(SCHEMES[scheme]())
            components["text_encoder_2"] = transformers.T5EncoderModel.from_pretrained(
                model / "text_encoder_2", quantization_config=config, dtype=dtype
            )
            lines["encode"] = f'quantize = {{ text_encoder_2 = "{scheme}" }}\n'
        return Weighed(components, lines=lines)

    return weigh


def _quantised(model: Path, scheme: str, dtype: torch.dtype) -> Any:
    config = diffusers.TorchAoConfig(SCHEMES[scheme]())
    return CLASSES[model.name].from_pretrained(
        model / "transformer", quantization_config=config, torch_dtype=dtype
    )


WEIGHTS: Mapping[str, tuple[str, Weigh]] = {
    "Q8_0": ("flux", ggml("Q8_0")),
    "Q8_0, video": ("wan21", ggml("Q8_0")),
    "Q8_0 fused": ("zimage", ggml("Q8_0")),
    "Q4_0": ("qwen", ggml("Q4_0")),
    "Q4_0 fused": ("zimage", ggml("Q4_0")),
    "BF16": ("flux", ggml("BF16")),
    "original names": ("zimage", original),
    "fp8 scaled": ("flux", scaled("scale_weight", rows=False)),
    "fp8 scaled by rows": ("qwen", scaled("weight_scale", rows=True)),
    "fp8 scaled, fused": ("zimage", scaled("scale_weight", rows=True)),
    "stored int8": ("flux", stored("int8")),
    "stored fp8": ("qwen", stored("fp8")),
    "quantize int8": ("flux", quantized("int8")),
    "quantize fp8": ("qwen", quantized("fp8")),
    "NF4": ("flux", by_bitsandbytes("nf4 double", "text_encoder_2")),
    "NF4, plain scales": ("qwen", by_bitsandbytes("nf4")),
    "FP4": ("qwen", by_bitsandbytes("fp4")),
    "NF4 of a UNet": ("sdxl", by_bitsandbytes("nf4 double")),
    "LLM.int8": ("flux", by_bitsandbytes("LLM.int8", "text_encoder_2")),
    "LLM.int8 of a UNet": ("sdxl", by_bitsandbytes("LLM.int8")),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_same_as_in_one_process(pictures: Path, tiny: Callable[[str], Path], name: str) -> None:
    model, weigh = WEIGHTS[name]
    dtype = torch.float32 if name == "fp8 scaled by rows" else torch.bfloat16
    folder, case = tiny(model), CASES[model]
    weighed = weigh(folder, pictures, dtype)
    expected = {seed: reference(case, folder, pictures, dtype, seed, **weighed.components) for seed in SEEDS}
    path = pictures / "made.toml"

    def write_manifest(placement: str) -> None:
        lines = dict(weighed.lines)
        lines["denoise"] = lines.get("denoise", "") + placement
        items = [{"id": f"{placement[:1] or 'r'}{seed}", "seed": seed} for seed in SEEDS]
        path.write_text(
            manifest(case, folder, str(dtype)[6:], items, weighed.parts, **lines), encoding="utf-8"
        )

    write_manifest(STREAM)
    run_stages(path, stop=("denoise", 2))
    rest = run_stages(path)
    assert len([event for event in rest if isinstance(event, Resumed)]) == len(SEEDS)
    streamed = [event.streamed for event in rest if isinstance(event, Finished) and event.streamed]
    assert all(one["read"] > 0 for one in streamed)
    assert streamed
    (path.parent / "runs").rename(path.parent / "streamed")
    resident = made_by_seed(path, write_manifest)
    for seed in SEEDS:
        assert equal(resident[seed], expected[seed])
    (path.parent / "runs").rename(path.parent / "resident")
    (path.parent / "streamed").rename(path.parent / "runs")
    for output, seed in zip(made(path).values(), SEEDS, strict=True):
        assert equal(output, expected[seed])


def made_by_seed(path: Path, write_manifest: Callable[[str], None]) -> dict[int, list[torch.Tensor]]:
    """What a run with all weights resident makes."""
    write_manifest("")
    run_stages(path)
    return dict(zip(SEEDS, made(path).values(), strict=True))
