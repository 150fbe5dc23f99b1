"""Quantised weights: their tensors, what reads them, and the memory that computing with them takes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runner.files.gguf import BF16, FORMATS, PLAIN
from runner.model import bitsandbytes
from runner.model.bitsandbytes import BITSANDBYTES, FOUR_BITS, INT8
from runner.placements import GROUP_OFFLOAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.files.header import TensorInfo

TORCHAO, GGUF = "torchao", "gguf"
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number in each dtype that stages compute in."""
PACKAGES = {TORCHAO: "torchao", GGUF: "gguf", BITSANDBYTES: "bitsandbytes"}
"""What computes with each kind of quantised weights; `stage-runner` has an extra of that name for each."""

SCHEMES = {"int8": "Int8WeightOnlyConfig", "fp8": "Float8WeightOnlyConfig"}
"""Schemes of torchao that are read and that ``quantize`` makes, with the classes in configs."""
_TORCHAO_OBJECTS = {*SCHEMES.values(), "PerRow", "PerTensor", "torch.dtype"}
_TORCHAO_TENSORS = {"Tensor", "Int8Tensor", "Float8Tensor", "KernelPreference", "torch.dtype"}
_TORCHAO_PART = re.compile(r"(?P<owner>.+)\._(?P<weight>[^.]+?)_(?P<part>qdata|scale|zero_point)")

# bytes for each number of a weight that its layer takes while it computes in bfloat16: measured peaks of a
# 12288 x 3072 layer with 64 rows of input on the CPU, torch 2.13, diffusers 0.42, torchao 0.18,
# bitsandbytes 0.50
WORKSPACE = {
    "int8": 2.2,
    "fp8": 10.1,
    "Q8_0": 4.1,
    "Q4_0": 5.1,
    "Q4_1": 5.1,
    "Q5_0": 10.1,
    "Q5_1": 10.1,
    "Q2_K": 5.3,
    "Q3_K": 7.4,
    "Q4_K": 5.3,
    "Q5_K": 7.3,
    "Q6_K": 7.2,
    "IQ4_NL": 12.1,
    "IQ4_XS": 12.3,
    BF16: 8.1,
    INT8: 4.1,
}
FOUR_BITS_IN = {"float32": 4.1, "bfloat16": 2.2, "float16": 2.2}
"""The same of bitsandbytes' layers in 4 bits, by the dtype that they compute in."""


@dataclass(frozen=True)
class Quantisation:
    """How some weights of a component are quantised; the others are plain."""

    method: str
    """Of :data:`PACKAGES`."""
    schemes: tuple[str, ...]
    """Such as ``("int8",)`` or ``("Q4_K", "Q6_K")``; the keys of :data:`WORKSPACE`."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """The tensor with the shape of each quantised weight, by the weight's name."""
    kept: frozenset[str] = frozenset()
    """All tensors of quantised weights: they stay as they are stored."""
    dtype: str | None = None
    """The dtype that the stage must compute in; None for any."""
    compute_dtype: str = ""
    """The dtype that its layers compute in, where their config says it."""

    def __str__(self) -> str:
        return f"{self.method} {', '.join(self.schemes)}"

    def excludes(self, placement: str) -> bool:
        """Whether a placement cannot move such weights."""
        return self.method != GGUF and placement == GROUP_OFFLOAD

    @property
    def missing(self) -> str:
        """What to do where the package that is needed is not installed; empty where it is."""
        return missing(self.method)

    def workspace(self, tensors: Mapping[str, TensorInfo]) -> int:
        """The most bytes that a layer takes beside its weight and its activations while it computes."""
        return max(
            (
                int(tensors[tensor].elements * self._bytes_a_number(tensors[tensor]))
                for tensor in self.weights.values()
            ),
            default=0,
        )

    def _bytes_a_number(self, tensor: TensorInfo) -> float:
        if self.schemes[0] in FOUR_BITS:
            return FOUR_BITS_IN[self.compute_dtype]
        return WORKSPACE[tensor.dtype if self.method == GGUF else self.schemes[0]]


def missing(method: str) -> str:
    """What to do where the package that reads a kind of weights is not installed; empty where it is."""
    package = PACKAGES[method]
    if find_spec(package) is not None:
        return ""
    return f"{package} is not installed: pip install 'stage-runner[{package}]'"


def quantisation_of(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]
) -> Quantisation | None:
    """How a component's weights are quantised, by its config and headers; None if they are not.

    None also for methods that are not read, which :mod:`runner.model.checks.formats` refuses.
    """
    ggml = {name for name, info in tensors.items() if info.dtype in FORMATS and info.dtype not in PLAIN}
    if ggml:
        schemes = tuple(sorted({tensors[name].dtype for name in ggml}))
        return Quantisation(GGUF, schemes, {name: name for name in ggml}, frozenset(ggml))
    if bitsandbytes.is_bitsandbytes(config):
        return _of_bitsandbytes(config, tensors)
    scheme, dtype = torchao_scheme(config), _torchao_dtype(metadata)
    if scheme and dtype:
        return Quantisation(TORCHAO, (scheme,), *parts_of(tensors), dtype)
    return None


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """A component's config without what it says about the quantisation of the folder's own weights."""
    return {name: value for name, value in config.items() if name != "quantization_config"}


def _of_bitsandbytes(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Quantisation | None:
    """Of tensors as :func:`runner.model.bitsandbytes.as_weights` returns them; None if none is quantised."""
    weights = [name for name in tensors if bitsandbytes.is_weight(name, tensors)]
    if not weights:
        return None
    settings = bitsandbytes.settings_of(config)
    kept = frozenset(part for weight in weights for part in bitsandbytes.parts_of(weight) if part in tensors)
    return Quantisation(
        BITSANDBYTES, (settings.scheme,), {n: n for n in weights}, kept, compute_dtype=settings.compute_dtype
    )


def parts_of(tensors: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Of the tensors of torchao's weights: the one with the shape of each weight, and all of them."""
    parts = {name: part for name in tensors if (part := _TORCHAO_PART.fullmatch(name))}
    weights = {f"{p['owner']}.{p['weight']}": n for n, p in parts.items() if p["part"] == "qdata"}
    return weights, frozenset(parts)


def torchao_scheme(config: Mapping[str, Any]) -> str:
    """The scheme of torchao in ``quantization_config``, if it is one that is read; else empty.

    torchao makes objects of the classes that the config names: only those of the schemes are allowed.
    """
    quantised = config.get("quantization_config")
    if not isinstance(quantised, dict) or quantised.get("quant_method") != TORCHAO:
        return ""
    kinds = quantised.get("quant_type")
    scheme = kinds.get("default") if isinstance(kinds, dict) and len(kinds) == 1 else None
    if not isinstance(scheme, dict) or not set(_objects(scheme)) <= _TORCHAO_OBJECTS:
        return ""
    return next((name for name, kind in SCHEMES.items() if kind == scheme.get("_type")), "")


def _torchao_dtype(metadata: Mapping[str, str]) -> str:
    """The dtype that weights were quantised from, by the metadata of their files; empty if it is not known.

    torchao makes objects of the classes that the metadata name, too.
    """
    dtypes: set[str] = set()
    try:
        for name in json.loads(metadata["tensor_names"]):
            described = json.loads(metadata[name])
            if not set(_objects(described)) <= _TORCHAO_TENSORS:
                return ""
            if described["_type"] != "Tensor":
                dtypes.add(described["_data"]["dtype"]["_data"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= ITEMSIZE.keys() else ""


def _objects(value: Any) -> list[str]:
    """The classes that a config names, at any depth."""
    if isinstance(value, dict):
        named = [str(value["_type"])] if "_type" in value else []
        return named + [one for inner in value.values() for one in _objects(inner)]
    return [one for inner in value for one in _objects(inner)] if isinstance(value, list) else []
