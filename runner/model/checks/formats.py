"""Files that other tools made: quantised weights, adapters, the names of a model's original authors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.model.shapes import ComponentShapes

LIBRARIES = ("diffusers", "transformers")
_DIFFUSERS_LAYOUT = "get the model in diffusers layout, whose files have the library's own names"
_PLAIN = "get its weights in bfloat16, float16, or in plain fp8 without scales"
# by the last part of a tensor's name; what these tools keep beside a quantised weight
_QUANTISED = {
    "weight_scale": "scaled fp8",
    "weight_scale_2": "scaled fp4",
    "scale_weight": "scaled fp8",
    "scaled_fp8": "scaled fp8",
    "weight_scale_inv": "scaled fp8",
    "qweight": "GPTQ, AWQ or nunchaku",
    "qzeros": "GPTQ or AWQ",
    "wscales": "nunchaku",
    "weight_packed": "compressed-tensors",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "nested_absmax": "bitsandbytes",
    "SCB": "bitsandbytes",
    "comfy_quant": "ComfyUI",
}
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
    """Which tool's files these tensors are of, and what to do; empty if no name tells."""
    for name in names:
        if tool := _quantised_by(name):
            return f"they were quantised by another tool ({tool}), which runner does not read; {_PLAIN}"
    if any(part in _ADAPTERS for name in names for part in name.split(".")):
        return (
            "they hold an adapter (LoRA) beside the weights of the model: merge it into them "
            "(diffusers' `fuse_lora`, then `unload_lora_weights`) and save the model anew"
        )
    if any(name.startswith(_ORIGINAL) for name in names):
        return f"they have the names of the model's original authors; {_DIFFUSERS_LAYOUT}"
    wrapper = next((w for w in _WRAPPERS if names and all(n.startswith(w) for n in names)), None)
    if wrapper:
        return f"they were saved from a wrapped model; save them anew without '{wrapper}' before each name"
    return ""


def foreign_format(shapes: ComponentShapes) -> str:
    """What says that the files of a library's class were made by another tool; empty if nothing does.

    Only what cannot be right: classes of plugins may have weights of any name.
    """
    if shapes.component.cls.partition(":")[0].partition(".")[0] not in LIBRARIES or not shapes.tensors:
        return ""
    method = next(_quantisation(shapes), None)
    if method:
        return f"the files are quantised ({method}), which runner does not read; {_PLAIN}"
    strange = [name for name in shapes.tensors if _quantised_by(name)]
    return f"the files hold {strange[0]}: {format_of(strange[:1])}" if strange else ""


def _quantisation(shapes: ComponentShapes) -> Iterator[str]:
    config = shapes.config.get("quantization_config")
    if isinstance(config, dict):
        yield str(config.get("quant_method") or config.get("quant_type") or "by its quantization_config")


def _quantised_by(name: str) -> str:
    if any(part in name for part in _QUANTISED_PARTS):
        return "bitsandbytes"
    return _QUANTISED.get(name.rpartition(".")[2], "")
