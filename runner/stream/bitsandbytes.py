"""The sources of weights that bitsandbytes has quantised: ``Params4bit`` and ``Int8Params``.

Both are parameters with more tensors in their attributes. They are made anew from copies each time: layers
change the object that they compute with.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_STATE = ("shape", "dtype", "blocksize", "quant_type")
"""Attributes of the state of a weight in 4 bits, and of that of its scales."""
_WEIGHT = ("blocksize", "compress_statistics", "quant_type", "quant_storage")
"""Attributes of the weight itself."""


class Packed:
    """A weight in NF4 or FP4: bytes, scales and a table of its 16 numbers; the scales may be quantised."""

    cast_size = 0

    def __init__(self, weight: Any) -> None:
        self.weight = weight
        state = self.weight.quant_state
        nested = getattr(state, "state2", None)
        of_scales = [] if nested is None else [nested.absmax, nested.code]
        self.tensors: Sequence[torch.Tensor] = [plain(weight), state.absmax, state.code, *of_scales]
        self._of_state = {name: getattr(state, name) for name in _STATE}
        self._of_nested = {} if nested is None else {name: getattr(nested, name) for name in _STATE}
        self._of_weight = {name: getattr(weight, name) for name in _WEIGHT}

    @cached_property
    def _offset(self) -> float:
        return float(self.weight.quant_state.offset)

    @property
    def dtype(self) -> torch.dtype:
        return plain(self.weight).dtype

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        del cast
        data, absmax, code, *nested = tensors
        cls = type(self.weight.quant_state)
        state = cls(absmax=absmax, code=code, **self._of_state)
        if nested:
            state.state2, state.nested = cls(absmax=nested[0], code=nested[1], **self._of_nested), True
            # filled on the device: copying a scalar from the host's memory would synchronise
            state.offset = torch.full((), self._offset, dtype=torch.float32, device=data.device)
        made: torch.Tensor = type(self.weight)(
            data, requires_grad=False, quant_state=state, bnb_quantized=True, **self._of_weight
        )
        return made


class ByRows:
    """A weight in LLM.int8: bytes, and a scale for each row."""

    cast_size = 0

    def __init__(self, weight: Any) -> None:
        self.weight = weight
        self.tensors: Sequence[torch.Tensor] = [plain(weight), self.weight.SCB]

    @property
    def dtype(self) -> torch.dtype:
        return plain(self.weight).dtype

    def materialize(self, tensors: Sequence[torch.Tensor], cast: torch.Tensor | None = None) -> torch.Tensor:
        del cast
        data, scales = tensors
        made: torch.Tensor = type(self.weight)(
            data, requires_grad=False, has_fp16_weights=False, CB=data, SCB=scales
        )
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
