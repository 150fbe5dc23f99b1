"""Recognises, from a file's header, adapter formats that diffusers would load wrongly or only in part."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError

if TYPE_CHECKING:
    from runner.files.header import Header

METADATA = "lora_adapter_metadata"
"""The entry of a file's metadata that diffusers makes peft's config from."""
CONFIG = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora", "lora_bias"),
    *("base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version"),  # of training
}
"""Settings that may differ from peft's defaults; any other would ask for another computation."""
SCALES = ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
"""Settings that scale what an adapter adds, or tables of them by layer."""
# by a part of a tensor's name: formats of which diffusers drops parts, or that compute with whole weights
REFUSED = {
    "dora_scale": "it is a DoRA, of which diffusers drops the magnitudes",
    "lora_magnitude_vector": "it is a DoRA, which computes with copies of whole weights",
    "hada_w": "it is a LoHa (LyCORIS), which diffusers does not load",
    "oft_": "it is an OFT adapter, which diffusers does not load",
    "lora_mid": "it is a LoCon with Tucker decomposition, which diffusers does not load",
    "string_to_param": "it is a textual inversion, not a LoRA",
    "emb_params": "it is a textual inversion, not a LoRA",
    "ip_adapter": "it is an IP-Adapter, not a LoRA",
}
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def refuse_formats(header: Header) -> None:
    """Refuse a file that is no LoRA, or of a kind that would be loaded in part.

    Raises:
        ModelError: it is one.

    """
    if not header.tensors:
        raise ModelError("it holds no tensors")
    for part, reason in REFUSED.items():
        if any(part in name for name in header.tensors):
            raise ModelError(reason)
    for name, info in header.tensors.items():
        matrix = not name.endswith("alpha")
        if info.dtype not in DTYPES or (matrix and not DTYPES[info.dtype].is_floating_point):
            raise ModelError(f"it holds {name} as {info.dtype}, which is not read here")
        if matrix and not info.elements:
            raise ModelError(f"it holds {name} without a number in it: the file was saved wrongly")
    _refuse_configs(header.metadata.get(METADATA))


def _refuse_configs(raw: str | None) -> None:
    """Refuse settings of peft that ask for more than plain LoRA: some compute with the model's weights."""
    if not raw:
        return
    from peft import LoraConfig

    try:
        settings = json.loads(raw)
        named = {name.rpartition(".")[2]: value for name, value in settings.items()}
    except (ValueError, AttributeError, RecursionError):
        raise ModelError(f"its metadata is damaged: '{METADATA}' is no JSON table") from None
    for name, value in settings.items():
        if name.rpartition(".")[2] in SCALES:
            for number in value.values() if isinstance(value, dict) else [value]:
                if type(number) not in (int, float) or not 0 < number < math.inf:
                    raise ModelError(
                        f"its metadata sets '{name}' of peft to {number!r}, and not to a positive number"
                    )
    usual: dict[str, Any] = LoraConfig().to_dict()
    for name, value in named.items():
        if value and value != usual.get(name) and name not in CONFIG:
            raise ModelError(f"its metadata sets '{name}' of peft, which runner does not take")
