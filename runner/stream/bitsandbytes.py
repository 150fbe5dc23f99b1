"""The sources of weights that bitsandbytes has quantised: ``Params4bit`` and ``Int8Params``.

Both are parameters with more tensors in their attributes. They are made anew from copies each time: layers
change the object that they compute with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

# of the state of a weight in 4 bits, and of that of its scales
_SAID = ("shape", "dtype", "blocksize", "quant_type")
_WEIGHT_SAID = ("blocksize", "compress_statistics", "quant_type", "quant_storage")


@dataclass(frozen=True)
class Packed:
    """A weight in NF4 or FP4: bytes, scales and a table of its 16 numbers; the scales may be quantised."""

    weight: torch.Tensor
    tensors: Sequence[torch.Tensor] = field(init=False)
    _said: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = field(init=False)
    _of_scales: torch.Tensor | None = field(init=False)

    cast_size = 0

    def __post_init__(self) -> None:
        weight: Any = self.weight
        state = weight.quant_state
        nested = getattr(state, "state2", None)
        tensors = [plain(weight), state.absmax, state.code]
        if nested is not None:
            tensors += [nested.absmax, nested.code]
        said = [{name: getattr(part, name) for name in _SAID} if part else {} for part in (state, nested)]
        object.__setattr__(self, "tensors", tuple(tensors))
        object.__setattr__(self, "_said", (*said, {name: getattr(weight, name) for name in _WEIGHT_SAID}))
        object.__setattr__(self, "_of_scales", None if nested is None else state.offset)

    @cached_property
    def _offset(self) -> float:
        return float(self._of_scales) if self._of_scales is not None else 0.0

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        del cast
        weight: Any = self.weight
        data, absmax, code, *nested = tensors
        of_state, of_nested, of_weight = self._said
        cls = type(weight.quant_state)
        state = cls(absmax=absmax, code=code, **of_state)
        if nested:
            state.state2, state.nested = cls(absmax=nested[0], code=nested[1], **of_nested), True
            # filled there: a copy of a number would have the host wait for an accelerator
            state.offset = torch.full((), self._offset, dtype=torch.float32, device=data.device)
        made: torch.Tensor = type(weight)(
            data, requires_grad=False, quant_state=state, bnb_quantized=True, **of_weight
        )
        return made


@dataclass(frozen=True)
class ByRows:
    """A weight in LLM.int8: bytes, and a scale for each row."""

    weight: torch.Tensor
    tensors: Sequence[torch.Tensor] = field(init=False)

    cast_size = 0

    def __post_init__(self) -> None:
        weight: Any = self.weight
        object.__setattr__(self, "tensors", (plain(weight), weight.SCB))

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        del cast
        data, scales = tensors
        cls: Any = type(self.weight)
        made: torch.Tensor = cls(data, requires_grad=False, has_fp16_weights=False, CB=data, SCB=scales)
        return made


def source_of(weight: torch.Tensor) -> Packed | ByRows | None:
    """The source of a weight that bitsandbytes has quantised; None for any other."""
    if getattr(weight, "quant_state", None) is not None:
        return Packed(weight)
    if getattr(weight, "SCB", None) is not None:
        return ByRows(weight)
    return None


def plain(weight: torch.Tensor) -> torch.Tensor:
    """The bytes of a weight as a tensor without attributes."""
    return weight.as_subclass(torch.Tensor).detach()
