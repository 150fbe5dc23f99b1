"""What the headers of a component's files say: names, shapes and sizes of its weights, and its blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.files.header import DTYPE_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import Component
    from runner.files.header import TensorInfo

FLOATING = {"F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3"}
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMED = r"[^.]*[^.\d][^.]*"  # a part of a name that is no number
_IN_A_LIST = re.compile(rf"^(?P<list>{_NAMED}(?:\.{_NAMED})*?)\.(?P<index>\d+)\.")


@dataclass(frozen=True)
class ComponentShapes:
    """A component as its headers and its ``config.json`` tell it, wherever the weights are."""

    component: Component
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    """By the names that the files have."""
    config: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    """Its files, as paths from the model's folder."""
    other_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By file name: what schedulers and tokenizers have instead of a ``config.json``."""
    variant: str | None = None
    """The variant of the weights; None where they are plain files."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The config of a model, a scheduler or a tokenizer."""
        return self.config or next(iter(self.other_configs.values()), {})

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.end - tensor.start for tensor in self.tensors.values())

    @property
    def dtypes(self) -> list[str]:
        """As the format names them, sorted."""
        return sorted({tensor.dtype for tensor in self.tensors.values()})

    def loaded_bytes(self, dtype: str) -> int:
        """Bytes in memory when computed in ``dtype`` (``"float32"``, ...)."""
        return sum(self.tensor_bytes(name, dtype) for name in self.tensors)

    def stored_of(self, name: str) -> int:
        """Bytes of one weight in its file."""
        return self.tensors[name].end - self.tensors[name].start

    def tensor_bytes(self, name: str, dtype: str) -> int:
        """Bytes of one weight in ``dtype``, or in what it is kept in beside that."""
        tensor = self.tensors[name]
        if tensor.dtype not in FLOATING:
            return tensor.elements * DTYPE_BITS[tensor.dtype] // 8
        kept = self.component.float32.get(dtype, ())
        return tensor.elements * ITEMSIZE["float32" if {*kept} & {*name.split(".")} else dtype]

    def largest_bytes(self, dtype: str) -> int:
        """Bytes of the largest single weight in ``dtype``."""
        return max((self.tensor_bytes(name, dtype) for name in self.tensors), default=0)

    @cached_property
    def blocks(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the weights of each block: runs of two or more siblings in a list, outermost lists first.

        ``Component.blocks`` names the lists, if it names any.
        """
        found: dict[str, dict[str, list[str]]] = {}
        for name in self.tensors:
            match = self._list_of(name)
            if match:
                prefix = f"{match[0]}.{match[1]}"
                found.setdefault(match[0], {}).setdefault(prefix, []).append(name)
        return {
            block: tuple(names)
            for siblings in found.values()
            if len(siblings) > 1
            for block, names in siblings.items()
        }

    def block_bytes(self, dtype: str) -> dict[str, int]:
        """Bytes of each block in ``dtype``."""
        return {
            block: sum(self.tensor_bytes(name, dtype) for name in names)
            for block, names in self.blocks.items()
        }

    def _list_of(self, name: str) -> tuple[str, str] | None:
        for named in self.component.blocks:
            inside = name.partition(f"{named}.")
            index = inside[2].partition(".")[0]
            if inside[1] and index.isdigit() and inside[0] in ("", "text_model."):
                return inside[0] + named, index
        match = None if self.component.blocks else _IN_A_LIST.match(name)
        return (match["list"], match["index"]) if match else None
