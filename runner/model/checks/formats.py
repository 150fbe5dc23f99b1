"""Recognises weights in formats of other tools: quantised, adapters, or with the original authors' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.model.bitsandbytes import BITSANDBYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from runner.model.shapes import ComponentShapes

LIBRARIES = ("diffusers", "transformers")
SCALED = "scaled fp8"
PLAIN = "get its weights in bfloat16 or float16, of which `quantize` makes int8 or fp8, or as GGUF"
_SINGLE_FILE = "name the file in [model.components]"
# by the last part of a tensor's name: the extra tensors of quantised weights
_QUANTISED = {
    "weight_scale": SCALED,
    "weight_scale_2": "scaled fp4",
    "scale_weight": SCALED,
    "scaled_fp8": SCALED,
    "weight_scale_inv": SCALED,
    "qweight": "GPTQ, AWQ or nunchaku",
    "qzeros": "GPTQ or AWQ",
    "wscales": "nunchaku",
    "weight_packed": "compressed-tensors",
    "absmax": BITSANDBYTES,
    "quant_map": BITSANDBYTES,
    "nested_absmax": BITSANDBYTES,
    "SCB": BITSANDBYTES,
    "comfy_quant": "ComfyUI",
}
_BYTES = ("I8", "U8", "F8_E8M0")
"""Dtypes that weights of no class have: libraries load them, and layers fail or make noise."""
_QUANTISED_PARTS = ("quant_state", "_quantization_metadata")
_ADAPTERS = ("lora_A", "lora_B", "lora_up", "lora_down", "lora_magnitude_vector", "base_layer", "hada_w1_a")
_ORIGINAL = (
    "model.diffusion_model.",
    "double_blocks.",
    "single_blocks.",
    "joint_blocks.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.embedders.",
    "text_encoders.",
    "vae.",
)
_WRAPPERS = ("_orig_mod.", "module.", "model.")


def format_of(names: Collection[str]) -> str:
    """A message about the format that the tensors' names indicate, with what to do; empty if none."""
    for name in names:
        if tool := _quantised_by(name):
            if tool == SCALED:
                return f"fp8 with scales is read from single files: {_SINGLE_FILE}"
            return f"they were quantised by another tool ({tool}), which runner does not read; {PLAIN}"
    if any(part in _ADAPTERS for name in names for part in name.split(".")):
        return (
            "they hold an adapter (LoRA) beside the weights of the model: merge it into them "
            "(diffusers' `fuse_lora`, then `unload_lora_weights`) and save the model anew"
        )
    if any(name.startswith(_ORIGINAL) for name in names):
        return f"they have the names of the model's original authors: {_SINGLE_FILE}"
    wrapper = next((w for w in _WRAPPERS if names and all(n.startswith(w) for n in names)), None)
    if wrapper:
        return f"they were saved from a wrapped model; save them anew without '{wrapper}' before each name"
    return ""


def foreign_format(shapes: ComponentShapes) -> str:
    """A message if the config or the tensors of a diffusers or transformers class are quantised, else empty.

    Classes of plugins are not checked: their weights may have any names.
    """
    if shapes.component.cls.partition(":")[0].partition(".")[0] not in LIBRARIES or not shapes.tensors:
        return ""
    if shapes.unread:
        return f"the files are quantised ({BITSANDBYTES}), and {shapes.unread}"
    if shapes.quantisation is not None and not shapes.prepared:
        return ""
    if method := _quantisation(shapes):
        return f"the files are quantised ({method}), which runner does not read; {PLAIN}"
    foreign = next((name for name in shapes.tensors if _quantised_by(name)), "")
    if _quantised_by(foreign) == BITSANDBYTES:
        return (
            f"the files hold {foreign}: they were quantised ({BITSANDBYTES}), and its config.json has no "
            "quantization_config that says how: get the folder as it was saved"
        )
    if foreign:
        return f"the files hold {foreign}: {format_of([foreign])}"
    for name, info in shapes.tensors.items() if not shapes.prepared else ():
        if info.dtype in _BYTES:
            return f"the files hold {name} as {info.dtype}: they were quantised by another tool; {PLAIN}"
    return ""


def foreign_in_file(tensors: Iterable[str]) -> str:
    """A message if the tensors of a single file are quantised in a way that is not read, else empty."""
    known = ("", SCALED, "ComfyUI")  # scales of other kinds are refused when they are looked at
    foreign = next((name for name in tensors if _quantised_by(name) not in known), "")
    return f"it holds {foreign}: {format_of([foreign])}" if foreign else ""


def _quantisation(shapes: ComponentShapes) -> str:
    """The quantisation method that ``config.json`` names; empty if none."""
    config = shapes.config.get("quantization_config")
    if not isinstance(config, dict):
        return ""
    return str(config.get("quant_method") or config.get("quant_type") or "by its quantization_config")


def _quantised_by(name: str) -> str:
    """The tool or format that a tensor's name indicates; empty if none."""
    if any(part in name for part in _QUANTISED_PARTS):
        return BITSANDBYTES
    return _QUANTISED.get(name.rpartition(".")[2], "")
