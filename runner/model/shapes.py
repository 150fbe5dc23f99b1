"""Names, shapes and sizes of a component's weights, and its blocks, from the headers of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.files.header import DTYPE_BITS
from runner.model import bitsandbytes
from runner.model.quantised import SCHEMES, TORCHAO, Quantisation, parts_of, quantisation_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runner.api import Component
    from runner.files.header import TensorInfo
    from runner.model.checks.adapters import AdapterReport

CONVERTED = "converted"
FLOATING = {"F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3"}
IN_HEADERS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""The names in safetensors headers of the dtypes that stages compute in."""
_NAMED = r"[^.]*[^.\d][^.]*"  # a part of a name that is not a number
_IN_A_LIST = re.compile(rf"^(?P<list>{_NAMED}(?:\.{_NAMED})*?)\.(?P<index>\d+)\.")


@dataclass(frozen=True)
class ComponentShapes:
    """A component as described by its headers and configs; its weights may be on the hub."""

    component: Component
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    """By name, as in the files."""
    config: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    """Its files, as paths relative to the model's folder."""
    other_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By file name: configs of schedulers and tokenizers."""
    variant: str | None = None
    """The variant of the weights; None for plain files."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of its weight files."""
    prepared: str = ""
    """How it is written into the cache before it is loaded: the scheme of ``quantize``, or ``CONVERTED``."""
    unread: str = ""
    """Why its quantised weights cannot be read, where that needs more than their names; else empty."""
    computed: frozenset[str] = frozenset()
    """Weights that are computed when the component is loaded: they are in no file, and in no block."""
    prediction: str = ""
    """What its single file says that it predicts, as schedulers name it."""
    adapters: tuple[AdapterReport, ...] = ()
    """Of the adapters that change it."""

    def read(
        self, files: Iterable[Collection[str]], descriptions: Mapping[str, bytes] | None
    ) -> ComponentShapes:
        """The same with the weights that its tensors stand for, if bitsandbytes has quantised it.

        ``files`` are the names of each file's tensors; for ``descriptions`` see
        :func:`.bitsandbytes.as_weights`.
        A component that cannot be read keeps its tensors, and ``unread`` says why.
        """
        if not bitsandbytes.is_bitsandbytes(self.config) or not self.tensors:
            return self
        try:
            settings = bitsandbytes.settings_of(self.config)
            tensors = bitsandbytes.as_weights(settings, self.tensors, descriptions)
            if settings.scheme != bitsandbytes.INT8 and self.component.cls.startswith("diffusers"):
                bitsandbytes.check_files(self.tensors, files)
        except ModelError as error:
            return replace(self, unread=str(error))
        return replace(self, tensors=tensors)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The config of a model, a scheduler or a tokenizer."""
        return self.config or next(iter(self.other_configs.values()), {})

    @cached_property
    def quantisation(self) -> Quantisation | None:
        """How some of the weights are quantised; None if they are not."""
        if self.prepared in SCHEMES:
            return Quantisation(TORCHAO, (self.prepared,), *parts_of(self.tensors))
        return None if self.unread else quantisation_of(self.config, self.tensors, self.metadata)

    @cached_property
    def weights(self) -> Mapping[str, TensorInfo]:
        """The tensors with the weights' shapes, by the weights' names: one for each, quantised or not."""
        quantisation = self.quantisation
        if quantisation is None:
            return self.tensors
        plain = {name: info for name, info in self.tensors.items() if name not in quantisation.kept}
        return plain | {weight: self.tensors[name] for weight, name in quantisation.weights.items()}

    @property
    def workspace(self) -> int:
        """The most bytes that a layer takes for its weight, dequantised, while it computes."""
        return self.quantisation.workspace(self.tensors) if self.quantisation else 0

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.weights.values())

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.end - tensor.start for tensor in self.tensors.values())

    @property
    def dtypes(self) -> list[str]:
        """Sorted names of the dtypes, as in safetensors headers."""
        return sorted({tensor.dtype for tensor in self.tensors.values()})

    def loaded_bytes(self, dtype: str) -> int:
        """Bytes in memory when computed in ``dtype`` (``"float32"``, ...)."""
        return sum(self._bytes_in(dtype).values()) + self.adapter_bytes(dtype)

    def adapter_bytes(self, dtype: str) -> int:
        """The part of them that adapters add; they stay on the device."""
        return sum(one.bytes_in(self.component, dtype) for one in self.adapters)

    def stored_of(self, name: str) -> int:
        """Bytes of one weight in its file."""
        return self.tensors[name].end - self.tensors[name].start

    def tensor_bytes(self, name: str, dtype: str) -> int:
        """Bytes of one weight when computed in ``dtype``; some stay in float32 (``Component.float32``)."""
        return self._bytes_in(dtype)[name]

    def cast_bytes(self, name: str, dtype: str) -> int:
        """Bytes that one weight takes beside its stored ones if cast to ``dtype``; else 0."""
        is_cast = self._dtypes_in(dtype)[name] != self.tensors[name].dtype
        return self.tensor_bytes(name, dtype) if is_cast else 0

    def largest_bytes(self, dtype: str) -> int:
        """Bytes of the largest single weight in ``dtype``."""
        return max(self._bytes_in(dtype).values(), default=0)

    @cached_property
    def blocks(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the weights of each block, by the block's name, such as ``layers.0``.

        Blocks are the members of lists with two or more members: those that ``Component.blocks`` names, else
        the outermost ones.
        """
        found: dict[str, dict[str, list[str]]] = {}
        for name in self.tensors.keys() - self.computed if self.computed else self.tensors:
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

    def block_bytes(self, dtype: str) -> Mapping[str, int]:
        """Bytes of each block in ``dtype``."""
        if dtype not in self._blocks_by_dtype:
            each = self._bytes_in(dtype)
            sizes = {block: sum(map(each.__getitem__, names)) for block, names in self.blocks.items()}
            self._blocks_by_dtype[dtype] = sizes
        return self._blocks_by_dtype[dtype]

    # these are kept, since a plan tries many placements and looks at each weight for each
    @cached_property
    def _dtypes_by_dtype(self) -> dict[str, Mapping[str, str]]:
        return {}

    @cached_property
    def _weights_by_dtype(self) -> dict[str, Mapping[str, int]]:
        return {}

    @cached_property
    def _blocks_by_dtype(self) -> dict[str, Mapping[str, int]]:
        return {}

    def _bytes_in(self, dtype: str) -> Mapping[str, int]:
        """Bytes of each weight when computed in ``dtype``."""
        if dtype not in self._weights_by_dtype:
            computed = self._dtypes_in(dtype)
            self._weights_by_dtype[dtype] = {
                name: tensor.elements * DTYPE_BITS[computed[name]] // 8
                if computed[name] != tensor.dtype
                else self.stored_of(name)
                for name, tensor in self.tensors.items()
            }
        return self._weights_by_dtype[dtype]

    def _dtypes_in(self, dtype: str) -> Mapping[str, str]:
        """The dtype of each weight, as headers name it, when the component is computed in ``dtype``."""
        if dtype not in self._dtypes_by_dtype:
            float32 = set(self.component.float32.get(dtype, ()))
            as_stored = self.quantisation.kept if self.quantisation else frozenset()
            self._dtypes_by_dtype[dtype] = {
                name: tensor.dtype
                if tensor.dtype not in FLOATING or name in as_stored
                else IN_HEADERS["float32" if not float32.isdisjoint(name.split(".")) else dtype]
                for name, tensor in self.tensors.items()
            }
        return self._dtypes_by_dtype[dtype]

    def _list_of(self, name: str) -> tuple[str, str] | None:
        """The list that a weight lies in, and its index there; None if it lies in none."""
        if not self.component.blocks:
            match = _IN_A_LIST.match(name)
            return (match["list"], match["index"]) if match else None
        for path in self._declared_lists:
            index = name.removeprefix(f"{path}.").partition(".")[0]
            if name.startswith(f"{path}.") and index.isdigit():
                return path, index
        return None

    @cached_property
    def _declared_lists(self) -> tuple[str, ...]:
        """The lists of ``Component.blocks``, by their names in the files.

        Files that were saved from an enclosing model have its name for this one before each name. A list is
        found under such a prefix if it is the only one of its name.
        """
        found: list[str] = []
        for declared in self.component.blocks:
            member = re.compile(rf"(?P<list>(?:.+?\.)?{re.escape(declared)})\.\d+(?:\.|$)")
            lists = {match["list"] for match in map(member.match, self.tensors) if match}
            found += [declared] if declared in lists else lists if len(lists) == 1 else []
        return tuple(found)
