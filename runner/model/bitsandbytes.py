"""Weights that bitsandbytes has quantised: which tensors are parts of them, and whether they agree.

A layer's matrix in NF4 or FP4 is bytes with two numbers each, one scale for each group of numbers
(``absmax``, which may be quantised in turn), tables, and a JSON text with its shape. One in LLM.int8 is bytes
with one scale for each row (``SCB``). The library trusts all of them: its kernels read as far as the shape
says.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runner.files.header import TensorInfo

BITSANDBYTES = "bitsandbytes"
INT8 = "LLM.int8"
FOUR_BITS = ("nf4", "fp4")
STATES = tuple(f".quant_state.bitsandbytes__{scheme}" for scheme in FOUR_BITS)
"""Ends of the names of JSON texts, each beside a weight."""
SCALES, FORMAT = ".SCB", ".weight_format"
DESCRIPTION_LIMIT = 4096  # bytes of a JSON text; usual ones have 80 to 200

_COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
_GROUPS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_NESTED_GROUP = 256  # the only one that its layers compute with
_BESIDE = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_FLAGS = ("load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit", "bnb_4bit_use_double_quant")
_FALSE = ("llm_int8_has_fp16_weight",)
_KNOWN = {
    *_FLAGS,
    *_FALSE,
    "quant_method",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_storage",
    "bnb_4bit_quant_type",
    "llm_int8_enable_fp32_cpu_offload",
    "llm_int8_skip_modules",
    "llm_int8_threshold",
}


@dataclass(frozen=True)
class Settings:
    """What ``quantization_config`` says."""

    scheme: str
    """``nf4``, ``fp4`` or ``LLM.int8``."""
    compute_dtype: str
    """The dtype that layers in 4 bits compute in; empty for the dtype of what they are given."""


def is_bitsandbytes(config: Mapping[str, Any]) -> bool:
    """Whether a component's config says that bitsandbytes has quantised it; files of 2023 name no method."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return False
    if "quant_method" in found:
        return bool(found["quant_method"] == BITSANDBYTES)
    return bool(found.get("load_in_4bit") or found.get("load_in_8bit"))


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The settings in a component's config.

    Raises:
        ModelError: one is not known, or its layers do not compute so.

    """
    found = config["quantization_config"]
    if unknown := sorted(found.keys() - _KNOWN):
        raise ModelError(f"its quantization_config has {unknown[0]!r}, which runner does not know")
    for name in (*_FLAGS, *_FALSE, "llm_int8_enable_fp32_cpu_offload"):
        if not isinstance(found.get(name, False), bool):
            raise _unknown(found, name)
    if any(found.get(name) for name in _FALSE):
        raise _unknown(found, _FALSE[0])
    skipped = found.get("llm_int8_skip_modules")
    if skipped is not None and not (isinstance(skipped, list) and all(isinstance(s, str) for s in skipped)):
        raise _unknown(found, "llm_int8_skip_modules")
    four, eight = found.get("load_in_4bit", False), found.get("load_in_8bit", False)
    if four == eight:
        raise ModelError("its quantization_config must say either load_in_4bit or load_in_8bit")
    if eight:
        threshold = found.get("llm_int8_threshold", 6.0)
        if not isinstance(threshold, float) or not 0 <= threshold < math.inf:
            raise _unknown(found, "llm_int8_threshold")
        return Settings(INT8, "")
    return _four_bits(found)


def _four_bits(found: Mapping[str, Any]) -> Settings:
    scheme = found.get("bnb_4bit_quant_type", "fp4")
    compute_dtype = found.get("bnb_4bit_compute_dtype") or "float32"
    if scheme not in FOUR_BITS:
        raise _unknown(found, "bnb_4bit_quant_type")
    if compute_dtype not in _COMPUTE_DTYPES:
        raise _unknown(found, "bnb_4bit_compute_dtype")
    if (found.get("bnb_4bit_quant_storage") or "uint8") != "uint8":
        raise _unknown(found, "bnb_4bit_quant_storage")
    return Settings(scheme, compute_dtype)


def _unknown(found: Mapping[str, Any], name: str) -> ModelError:
    return ModelError(f"its quantization_config has {name} = {found[name]!r}, which is not read"[:300])


def check_files(tensors: Iterable[str], files: Iterable[Collection[str]]) -> None:
    """Check that each weight's tensors are in one file: diffusers takes those that are missing for absent."""
    files = list(files)
    for weight in weights_of(tensors) if len(files) > 1 else ():
        if sum(any(name.startswith(f"{weight}.") or name == weight for name in file) for file in files) > 1:
            raise ModelError(f"the tensors of '{weight}' are in several files, which diffusers does not read")


def is_description(name: str) -> bool:
    """Whether a tensor's content is needed to know what others are: a JSON text, or a layout's number."""
    return name.endswith((*STATES, FORMAT))


def as_weights(
    settings: Settings, tensors: Mapping[str, TensorInfo], descriptions: Mapping[str, bytes] | None
) -> dict[str, TensorInfo]:
    """The component's tensors with the unpacked shape of each quantised weight, and without descriptions.

    ``descriptions`` has the bytes of these, by name. With None, where only headers are read from the hub,
    weights in 4 bits have the shape (numbers,). Their dtype is ``NF4`` or ``FP4``, which no header has.

    Raises:
        ModelError: tensors are missing, do not agree, or are of a kind that is not read.

    """
    whole = _int8 if settings.scheme == INT8 else _packed
    made = {name: info for name, info in tensors.items() if not is_description(name)}
    for weight in weights_of(tensors):
        made[weight] = whole(weight, settings, tensors, descriptions)
    if not any(True for _ in weights_of(tensors)):
        raise ModelError(
            "its config says that bitsandbytes has quantised it, and no tensor of its files is so"
        )
    kept = {part for weight in weights_of(tensors) for part in parts_of(weight)}
    stray = next((n for n in made if n not in kept and n.endswith((SCALES, *(f".{b}" for b in _BESIDE)))), "")
    if stray:
        raise ModelError(f"it holds '{stray}' and no quantised weight that this is of")
    return made


def weights_of(tensors: Iterable[str]) -> Iterable[str]:
    """The names of the quantised weights among a file's tensors, by those that are beside each."""
    for name in tensors:
        if name.endswith(SCALES):
            yield f"{name.removesuffix(SCALES)}.weight"
        else:
            for state in STATES:
                if name.endswith(state):
                    yield name.removesuffix(state)


def is_weight(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a tensor is a quantised weight, among those that :func:`as_weights` returns."""
    in_four_bits = tensors[name].dtype.lower() in FOUR_BITS
    return in_four_bits or (name.endswith(".weight") and f"{name.removesuffix('.weight')}{SCALES}" in tensors)


def parts_of(weight: str) -> tuple[str, ...]:
    """The names that the tensors of a quantised weight may have."""
    return (weight, *(f"{weight}.{part}" for part in _BESIDE), f"{weight.removesuffix('.weight')}{SCALES}")


def _int8(
    weight: str, _: Settings, tensors: Mapping[str, TensorInfo], descriptions: Mapping[str, bytes] | None
) -> TensorInfo:
    owner = weight.removesuffix(".weight")
    info = _tensor(tensors, weight, "I8")
    _expect(weight, info, len(info.shape) == 2, "a matrix")
    scales = _tensor(tensors, f"{owner}{SCALES}", "F32")
    _expect(f"{owner}{SCALES}", scales, scales.shape == info.shape[:1], f"{info.shape[0]} numbers, one a row")
    layout = f"{owner}{FORMAT}"
    if descriptions is not None and layout in tensors and descriptions[layout] != b"\0":
        raise ModelError(f"'{layout}' is {descriptions[layout][:1].hex()}: only weights in rows (0) are read")
    return info


def _packed(
    weight: str,
    settings: Settings,
    tensors: Mapping[str, TensorInfo],
    descriptions: Mapping[str, bytes] | None,
) -> TensorInfo:
    """A matrix in 4 bits, if all of its tensors are there and as long as its layer will read."""
    info = _tensor(tensors, weight, "U8")
    state = next(f"{weight}{end}" for end in STATES if f"{weight}{end}" in tensors)
    if not state.endswith(settings.scheme):
        raise ModelError(f"it holds '{state}', and its quantization_config says {settings.scheme}")
    _expect(weight, info, info.shape == (info.elements, 1), "one column")
    _exactly(tensors, f"{weight}.quant_map", "F32", 16)
    nested = f"{weight}.nested_absmax" in tensors
    if descriptions is None:
        _tensor(tensors, f"{weight}.absmax", "U8" if nested else "F32")
        return replace(info, dtype=settings.scheme.upper(), shape=(2 * info.elements,))
    shape, group = _shape_and_group(state, descriptions[state], settings.scheme, nested=nested)
    numbers = math.prod(shape)
    _expect(weight, info, info.elements == -(-numbers // 2), f"{-(-numbers // 2)} bytes")
    groups = -(-numbers // group)
    _exactly(tensors, f"{weight}.absmax", "U8" if nested else "F32", groups)
    if nested:
        _exactly(tensors, f"{weight}.nested_quant_map", "F32", 256)
        _exactly(tensors, f"{weight}.nested_absmax", "F32", -(-groups // _NESTED_GROUP))
    return replace(info, dtype=settings.scheme.upper(), shape=shape)


def _shape_and_group(name: str, text: bytes, scheme: str, *, nested: bool) -> tuple[tuple[int, int], int]:
    """The shape and the size of groups that a JSON text says.

    Raises:
        ModelError: it is damaged, or says what the library's layers do not compute with.

    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"'{name}' is damaged: it is no JSON table; fetch the file again")
    needed = {"quant_type", "blocksize", "dtype", "shape"}
    needed |= {"nested_blocksize", "nested_dtype", "nested_offset"} if nested else set()
    if found.keys() != needed:
        raise ModelError(f"'{name}' has {sorted(found)}, and should have {sorted(needed)}"[:500])
    shape = found["shape"]
    right = (
        found["quant_type"] == scheme
        and found["dtype"] in _COMPUTE_DTYPES
        and _is_one_of(found["blocksize"], _GROUPS)
        and isinstance(shape, list)
        and len(shape) == 2
        and all(type(side) is int and 0 < side < 1 << 31 for side in shape)
        and shape[1] % 2 == 0  # the kernels of the CPU read rows of whole bytes
    )
    if nested:
        offset = found["nested_offset"]
        right = right and _is_one_of(found["nested_blocksize"], (_NESTED_GROUP,))
        right = right and found["nested_dtype"] == "float32"
        right = right and type(offset) is float and math.isfinite(offset)
    if not right:
        raise ModelError(f"'{name}' says {text.decode(errors='replace')[:300]}, which is not read")
    return (shape[0], shape[1]), found["blocksize"]


def _is_one_of(value: object, allowed: tuple[int, ...]) -> bool:
    return type(value) is int and value in allowed


def _exactly(tensors: Mapping[str, TensorInfo], name: str, dtype: str, length: int) -> None:
    info = _tensor(tensors, name, dtype)
    _expect(name, info, info.shape == (length,), f"{length} numbers")


def _tensor(tensors: Mapping[str, TensorInfo], name: str, dtype: str) -> TensorInfo:
    info = tensors.get(name)
    if info is None:
        raise ModelError(f"it has no '{name}', without which its layer cannot be computed")
    _expect(name, info, info.dtype == dtype, dtype)
    return info


def _expect(name: str, info: TensorInfo, right: bool, what: str) -> None:
    if not right:
        shape = " x ".join(map(str, info.shape)) or "a number"
        raise ModelError(f"'{name}' is {info.dtype}, {shape}, and should be {what}")
