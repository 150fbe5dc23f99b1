"""Adapters (LoRA) beside streamed and resident weights: the bits of diffusers' own ``load_lora_weights``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
from bitsandbytes_weights import FORMS, config_of, load_quantised, write_quantised
from diffusers import FluxTransformer2DModel
from lora_files import FLUX, TEXT, XL, write_kohya_flux, write_lora
from pipeline_cases import CASES, manifest, reference
from single_files import weights_of, write_gguf
from stages_here import made, run_stages
from torchao.quantization import Int8WeightOnlyConfig

from runner.events import Finished, Progress, Resumed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LORA = '[[lora]]\nsource = "./style.safetensors"\nweight = 0.8\n[[lora]]\nsource = "./anna.safetensors"\n'
WEIGHTS: tuple[dict[str, float], ...] = (
    {},
    {"style": -0.5, "anna": 0.3},
    {"style": 0.0},
    {"style": 0.0, "anna": 0.0},
)
"""Of each item; what it leaves out is 0.8 and 1."""


def write_loras(name: str, folder: Path, checkpoint: Path) -> None:
    """Two adapters with names of different trainers."""
    style, anna = folder / "style.safetensors", folder / "anna.safetensors"
    if name == "flux":
        write_lora(style, checkpoint, {"transformer": FLUX, "text_encoder": TEXT})
        write_kohya_flux(anna, checkpoint, seed=1)
    else:
        write_lora(style, checkpoint, XL)
        write_lora(anna, checkpoint, XL, rank=2, seed=1, kohya=True, dtype=torch.float16)


@pytest.mark.parametrize(
    ("name", "dtype", "placement"),
    [
        ("sdxl", "float32", "stream"),
        ("sdxl", "bfloat16", "resident"),
        ("flux", "float32", "resident"),
        ("flux", "bfloat16", "stream"),
    ],
)
def test_items_with_weights_of_their_own_are_those_of_diffusers(
    pictures: Path, tiny: Callable[[str], Path], name: str, dtype: str, placement: str
) -> None:
    case, checkpoint = CASES[name], tiny(CASES[name].checkpoint)
    write_loras(name, pictures, checkpoint)
    items = [{"id": f"item-{n}", "lora_weights": weights} for n, weights in enumerate(WEIGHTS)]
    placed = f'placement = "{placement}"'
    path = pictures / "made.toml"
    path.write_text(manifest(case, checkpoint, dtype, items, encode=placed, denoise=placed) + LORA)

    first = run_stages(path, stop=("denoise", 2))
    rest = run_stages(path)

    found = made(path)
    for item, weights in zip(items, WEIGHTS, strict=True):
        given = {"style": 0.8, "anna": 1.0, **weights}
        loras = {pictures / f"{lora}.safetensors": weight for lora, weight in given.items()}
        expected = reference(case, checkpoint, pictures, getattr(torch, dtype), loras=loras)
        assert all(map(torch.equal, found[str(item["id"])], expected)), item
    assert not torch.equal(found["item-0"][0], found["item-1"][0])
    plain = reference(case, checkpoint, pictures, getattr(torch, dtype))
    assert all(map(torch.equal, found["item-3"], plain))
    assert [event for event in rest if isinstance(event, Resumed)]
    if placement == "stream":
        steps = [e.item for e in first if isinstance(e, Progress) and e.stage == "denoise"]
        assert len({*steps[: len(items)]}) == len(items)  # in lockstep
        read = [e.streamed["read"] for e in rest if isinstance(e, Finished) and e.streamed]
        assert read


def test_a_scale_in_a_call_is_its_items_alone(pictures: Path, tiny: Callable[[str], Path]) -> None:
    """Pipelines multiply the scales that are on the layers, and divide them again after each call."""
    case, checkpoint = CASES["sdxl"], tiny("sdxl")
    write_lora(pictures / "style.safetensors", checkpoint, XL)
    scales = {"half": 0.5, "whole": 1.0, "quarter": 0.25}
    items = [{"id": name, "cross_attention_kwargs": {"scale": scale}} for name, scale in scales.items()]
    placed = 'placement = "stream"'
    path = pictures / "made.toml"
    lora = '[[lora]]\nsource = "./style.safetensors"\n'
    path.write_text(manifest(case, checkpoint, "float32", items, encode=placed, denoise=placed) + lora)

    run_stages(path)

    found = made(path)
    for item in items:
        call = case.but(cross_attention_kwargs=item["cross_attention_kwargs"])
        expected = reference(
            call, checkpoint, pictures, torch.float32, loras={pictures / "style.safetensors": 1.0}
        )
        assert all(map(torch.equal, found[str(item["id"])], expected)), item


@pytest.mark.parametrize("kind", ["Q4_0", "int8", "nf4 double", "LLM.int8"])
def test_beside_quantised_weights_that_stream(pictures: Path, tiny: Callable[[str], Path], kind: str) -> None:
    """The adapter itself is not quantised."""
    case, checkpoint, dtype = CASES["flux"], tiny("flux"), torch.bfloat16
    write_loras("flux", pictures, checkpoint)
    items = [{"id": f"item-{n}", "lora_weights": weights} for n, weights in enumerate(WEIGHTS[:2])]
    options: dict[str, Any]
    lines = 'placement = "stream"'
    if kind == "int8":
        lines += '\nquantize = "int8"'
        options = {"quantization_config": diffusers.TorchAoConfig(Int8WeightOnlyConfig(version=2))}
        load = partial(FluxTransformer2DModel.from_pretrained, checkpoint / "transformer", **options)
    elif kind in FORMS:
        cls, plain = FluxTransformer2DModel, checkpoint / "transformer"
        folder = write_quantised(plain, pictures / "quantised", cls, config_of(kind), dtype)
        load = partial(load_quantised, folder, cls)
    else:
        file = write_gguf(pictures / "some.gguf", weights_of(checkpoint / "transformer"), kind)
        options = {"quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=dtype)}
        config = str(checkpoint / "transformer")
        load = partial(FluxTransformer2DModel.from_single_file, str(file), config=config, **options)
    text = manifest(case, checkpoint, "bfloat16", items, denoise=lines)
    if kind != "int8":
        source = "./quantised" if kind in FORMS else "./some.gguf"
        text = text.replace("[budget]", f'[model.components]\ntransformer = "{source}"\n[budget]', 1)
    path = pictures / "made.toml"
    path.write_text(text + LORA)

    run_stages(path)

    found = made(path)
    for item, weights in zip(items, WEIGHTS, strict=False):
        given = {"style": 0.8, "anna": 1.0, **weights}
        loras = {pictures / f"{lora}.safetensors": weight for lora, weight in given.items()}
        theirs = load(dtype=dtype) if kind in FORMS else load(torch_dtype=dtype)
        expected = reference(case, checkpoint, pictures, dtype, loras=loras, transformer=theirs)
        assert all(map(torch.equal, found[str(item["id"])], expected)), item
