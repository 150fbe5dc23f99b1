"""The sources of parameters: the plain tensors that each consists of, and how it is made from copies.

A plain weight is one tensor. A quantised one is a tensor subclass of its library, made of several: data and
scales, for example. Readers, slots and placements copy plain tensors, whatever they become.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from runner.stream import bitsandbytes
from runner.stream.scaled import ScaledWeight, product

if TYPE_CHECKING:
    from collections.abc import Sequence


class WeightSource(Protocol):
    """One parameter or buffer as plain tensors."""

    @property
    def tensors(self) -> Sequence[torch.Tensor]:
        """The tensors that it consists of, as they are in memory or mapped from files."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameter that it becomes."""

    @property
    def cast_size(self) -> int:
        """Bytes beside its tensors that the parameter takes: 0 if it is made of these as they are."""

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        """The parameter, made of copies of its tensors, on the device where these are.

        ``cast`` are ``cast_size`` bytes (uint8) there, for a parameter whose tensors are cast.
        """


@dataclass(frozen=True)
class Plain:
    """A weight that is one tensor; it is cast to ``dtype``."""

    tensor: torch.Tensor
    dtype: torch.dtype

    @property
    def tensors(self) -> Sequence[torch.Tensor]:
        return (self.tensor,)

    @property
    def cast_size(self) -> int:
        return 0 if self.dtype == self.tensor.dtype else self.tensor.numel() * self.dtype.itemsize

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        (value,) = tensors
        if self.cast_size:
            value = value.to(self.dtype) if cast is None else _as(cast, self.dtype, value).copy_(value)
        return value


class Flattened:
    """A quantised weight of torchao or quanto: a tensor subclass with inner tensors."""

    cast_size = 0

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self._names, self._context = weight.__tensor_flatten__()  # type: ignore[attr-defined]
        parts = [getattr(weight, name) for name in self._names]
        self._inner = [source_of(part, part.dtype) for part in parts]

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def tensors(self) -> Sequence[torch.Tensor]:
        return [tensor for part in self._inner for tensor in part.tensors]

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        del cast
        left = iter(tensors)
        made = {
            name: part.materialize([next(left) for _ in part.tensors])
            for name, part in zip(self._names, self._inner, strict=True)
        }
        size, stride = self.weight.shape, self.weight.stride()
        whole: torch.Tensor = type(self.weight).__tensor_unflatten__(made, self._context, size, stride)  # type: ignore[attr-defined]
        return whole


@dataclass(frozen=True)
class Ggml:
    """A weight in a block format of GGML: diffusers' ``GGUFParameter``, bytes with the name of their format.

    Its layer dequantises it each time that it computes.
    """

    weight: torch.Tensor

    cast_size = 0

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def tensors(self) -> Sequence[torch.Tensor]:
        weight: Any = self.weight
        return (weight.as_tensor().detach(),)

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        del cast
        weight: Any = self.weight
        made: torch.Tensor = type(weight)(tensors[0], quant_type=weight.quant_type)
        return made


@dataclass(frozen=True)
class Scaled:
    """An fp8 weight with a scale beside it, which becomes their product, in ``dtype``."""

    weight: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype

    @property
    def tensors(self) -> Sequence[torch.Tensor]:
        return self.weight, self.scale

    @property
    def cast_size(self) -> int:
        return self.weight.numel() * self.dtype.itemsize

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        weight, scale = tensors
        if cast is None:
            cast = torch.empty(self.cast_size, dtype=torch.uint8, device=weight.device)
        return product(weight, scale, _as(cast, self.dtype, weight))


def source_of(weight: torch.Tensor, dtype: torch.dtype) -> WeightSource:
    """The source of a parameter or buffer that computes in ``dtype``; quantised ones keep their own."""
    if hasattr(weight, "quant_type") and hasattr(weight, "as_tensor"):
        return Ggml(weight)
    if (source := bitsandbytes.source_of(weight)) is not None:
        return source
    if isinstance(weight, ScaledWeight):
        return Scaled(weight.plain().detach(), weight.scale, dtype)
    if is_traceable_wrapper_subclass(weight):
        return Flattened(weight)
    # a tensor of its own: the parameter may get other memory
    return Plain(weight.detach(), dtype)


def is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight is one tensor, which code may move and cast as it likes."""
    return isinstance(source_of(weight, weight.dtype), Plain)


def _as(memory: torch.Tensor, dtype: torch.dtype, like: torch.Tensor) -> torch.Tensor:
    """The start of some bytes as a tensor of another's shape."""
    return memory[: like.numel() * dtype.itemsize].view(dtype).view(like.shape)
