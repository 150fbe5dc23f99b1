"""Values that pipelines pass around, as tensors and JSON: an allow-list of types, in both directions.

A hand-off is a file, and may come from a stranger: nothing in it chooses what is imported or called.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, IdentityDistribution
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    Json = Any
    Put = Callable[[torch.Tensor], str]
    """Keeps a tensor; returns its name."""
    Get = Callable[[str], torch.Tensor]
    """Returns the tensor of a name, on the device where it belongs."""

DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
DISTRIBUTIONS: Mapping[str, Any] = {
    cls.__name__: cls
    for cls in (DiagonalGaussianDistribution, OobleckDiagonalGaussianDistribution, IdentityDistribution)
}
"""Distributions that VAEs encode to, made again from their parameters."""
SEQUENCES: Mapping[str, type[Any]] = {"list": list, "tuple": tuple, "Size": torch.Size}
DETAILS = ("strides", "mode", "of", "deterministic")
"""What JSON of a value says beside its kind."""


class UnsupportedValueError(Exception):
    """A value of a type that cannot be handed off."""


class Fields(OrderedDict[str, Any]):
    """A library's output object as read back: by attribute, by key, and by index among what is not None."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value for value in self.values() if value is not None)


class Unknown:
    """Stands for a value that was not handed off; pipelines may hand it on, and call its methods."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_args, **_kwargs: None


def _refuse(value: Any) -> Json:
    raise UnsupportedValueError(f"{type(value).__module__}.{type(value).__name__}")


def pack(value: Any, put: Put, unlisted: Callable[[Any], Json] = _refuse) -> Json:
    """The value as JSON; its tensors are kept by ``put``, what no type is listed for becomes ``unlisted``.

    Raises:
        UnsupportedValueError: it holds something of a type that is not listed here.

    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, torch.Tensor):
        return {"tensor": put(value), **_layout(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": value.type}
    if isinstance(value, np.generic):
        return pack(value.item(), put)
    if isinstance(value, np.ndarray):
        return {"array": put(torch.from_numpy(np.ascontiguousarray(value)))}
    if isinstance(value, Image.Image):
        return {"image": put(torch.from_numpy(np.array(value))), "mode": value.mode}
    return _pack_parts(value, put, unlisted)


def _layout(tensor: torch.Tensor) -> dict[str, list[int]]:
    """The strides of a tensor that lies in memory in another order: kernels give other low bits for it."""
    strides = list(tensor.stride())
    if strides == list(torch.empty(tensor.shape, device="meta").stride()):
        return {}
    return {"strides": strides} if _is_dense(tensor, strides) else {}


def _is_dense(tensor: torch.Tensor, strides: list[int]) -> bool:
    """Whether numbers that lie so fill their memory, each in a place of its own."""
    filled = 1
    for step, size in sorted(zip(strides, tensor.shape, strict=True)):
        if size > 1 and step != filled:
            return False
        filled *= size
    return True


def _laid_out(tensor: torch.Tensor, strides: list[int] | None) -> torch.Tensor:
    if strides is None:
        return tensor
    if not _is_dense(tensor, strides):
        raise ValueError(f"strides {strides} for a tensor of {list(tensor.shape)}")
    made = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor)


def _pack_parts(value: Any, put: Put, unlisted: Callable[[Any], Json]) -> Json:
    kind = type(value).__name__
    if type(value) in SEQUENCES.values():
        return {kind: [pack(one, put, unlisted) for one in value]}
    if kind in DISTRIBUTIONS and isinstance(value, DISTRIBUTIONS[kind]):
        options = {"deterministic": True} if getattr(value, "deterministic", False) else {}
        return {"distribution": kind, "of": pack(value.parameters, put), **options}
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": [[name, pack(one, put, unlisted)] for name, one in value.items()]}
    if isinstance(value, Mapping) and type(value) is not dict:  # outputs and batches of the libraries
        names = [field.name for field in fields(value)] if is_dataclass(value) else list(value)
        return {"fields": [[name, pack(value.get(name), put, unlisted)] for name in names]}
    return unlisted(value)


def unpack(packed: Json, get: Get, device: torch.device) -> Any:
    """The value that :func:`pack` made JSON of; devices in it become ``device``.

    Raises:
        UnsupportedValueError: it was not made by :func:`pack`.

    """
    if packed is None or isinstance(packed, bool | int | float | str):
        return packed
    try:
        kind = next(name for name in packed if name not in DETAILS)  # in files, names are in another order
        content = packed[kind]
        if kind in SEQUENCES:
            return SEQUENCES[kind](unpack(one, get, device) for one in content)
        if kind in ("dict", "fields"):
            named = {str(name): unpack(one, get, device) for name, one in content}
            return named if kind == "dict" else Fields(named)
        return _unpack_single(kind, content, packed, get, device)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError, StopIteration) as error:
        raise UnsupportedValueError(f"a hand-off that no stage of this plugin wrote: {error}") from None


def _unpack_single(kind: str, content: Any, packed: Json, get: Get, device: torch.device) -> Any:
    match kind:
        case "float":
            return float(content)
        case "tensor":
            return _laid_out(get(content), packed.get("strides"))
        case "dtype":
            return DTYPES[content]
        case "device":
            return device
        case "array":
            return get(content).numpy()
        case "image":
            return Image.fromarray(get(content).numpy(), packed["mode"])
        case "distribution":
            options = {"deterministic": True} if packed.get("deterministic") else {}
            return DISTRIBUTIONS[content](unpack(packed["of"], get, device), **options)
        case "unknown":
            return Unknown()
    raise UnsupportedValueError(f"a value of kind {kind!r} in a hand-off")


def described(tensor: torch.Tensor) -> str:
    """The dtype and shape of a tensor: ``float32 1x4x8x8``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape))}"


def zeros(description: str, device: torch.device) -> torch.Tensor:
    """Zeros of the dtype and shape that :func:`described` wrote.

    On the CPU they take no memory before they are written to.

    Raises:
        ValueError: there is no memory for so many.

    """
    name, _, shape = description.partition(" ")
    sizes = [int(size) for size in shape.split("x")] if shape else []
    dtype = DTYPES[f"torch.{name}"]
    numbers = math.prod(sizes)
    if not numbers or device.type != "cpu":
        return torch.zeros(sizes, dtype=dtype, device=device)
    try:
        filled = np.zeros(numbers * dtype.itemsize, np.uint8)
    except MemoryError as error:
        raise ValueError(f"{description}: {error}") from None
    return torch.from_numpy(filled).view(dtype).view(sizes)
