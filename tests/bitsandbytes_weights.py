"""Models that bitsandbytes has quantised on the CPU, as diffusers saves them, and as they are without runner.

diffusers itself asks for a card before it does either: its parts do the same without one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
    "nf4 double": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": torch.bfloat16,
        "bnb_4bit_use_double_quant": True,
    },
    "fp4": {"load_in_4bit": True},  # computes in float32
    "LLM.int8": {"load_in_8bit": True},
}
FILE = "diffusion_pytorch_model.safetensors"


def config_of(form: str, **more: Any) -> Any:
    """The settings of a form; the test is skipped where the library is not installed."""
    pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes, which the extra of that name brings, is not there"
    )
    return diffusers.BitsAndBytesConfig(**FORMS[form], **more)


def write_quantised(plain: Path, target: Path, cls: Any, config: Any, dtype: torch.dtype) -> Path:
    """Write a folder with the quantised weights of a folder of diffusers."""
    model = cls.from_pretrained(plain, torch_dtype=dtype)
    weights = dict(model.named_parameters())
    replaced = _with_layers(model, cls, config)
    for name, layer in _layers(replaced):
        weight = weights[f"{name}.weight"].detach()
        layer.weight = _quantised(layer, weight)
        if layer.bias is not None:
            layer.bias = weights[f"{name}.bias"]
    target.mkdir()
    save_file(
        {name: one.contiguous() for name, one in replaced.state_dict().items()},
        target / FILE,
        {"format": "pt"},
    )
    table = json.loads((plain / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(table | {"quantization_config": config.to_dict()}))
    return target


def load_quantised(folder: Path, cls: Any, dtype: torch.dtype) -> Any:
    """The model of such a folder, with diffusers' layers and bitsandbytes' own loading of each weight."""
    import bitsandbytes

    table = json.loads((folder / "config.json").read_text())
    config = diffusers.BitsAndBytesConfig.from_dict(table.pop("quantization_config"))
    model = _with_layers(cls.from_config(table).to(dtype), cls, config)
    tensors = load_file(folder / FILE)
    for name, layer in _layers(model):
        weight = tensors.pop(f"{name}.weight")
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False  # dequantised on every CPU
            stats = {key: tensors.pop(key) for key in list(tensors) if key.startswith(f"{name}.weight.")}
            layer.weight = bitsandbytes.nn.Params4bit.from_prequantized(
                weight, stats, device="cpu", module=layer
            )
        else:
            layer.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False).to("cpu")
            layer.weight.SCB = tensors.pop(f"{name}.SCB")
            tensors.pop(f"{name}.weight_format")
        if layer.bias is not None:
            layer.bias = torch.nn.Parameter(tensors.pop(f"{name}.bias").to(dtype), requires_grad=False)
    # by these, peft knows which layers it adds adapters to
    model.is_quantized, model.quantization_method = True, config.quant_method
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = config.load_in_4bit, config.load_in_8bit
    report = model.load_state_dict({name: one.to(dtype) for name, one in tensors.items()}, strict=False)
    assert not report.unexpected_keys
    return model.eval()


def _with_layers(model: Any, cls: Any, config: Any) -> Any:
    kept = [*(config.llm_int8_skip_modules or ()), *(cls._keep_in_fp32_modules or ())]
    return replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    yield from ((n, part) for n, part in model.named_modules() if isinstance(part, Linear4bit | Linear8bitLt))


def _quantised(layer: Any, weight: torch.Tensor) -> Any:
    from bitsandbytes.nn import Int8Params, Linear4bit, Params4bit

    if not isinstance(layer, Linear4bit):
        return Int8Params(weight, requires_grad=False, has_fp16_weights=False).to("cpu")
    how = layer.weight
    return Params4bit(
        weight, requires_grad=False, compress_statistics=how.compress_statistics, quant_type=how.quant_type
    ).to("cpu")
