"""Requests to try an adapter's file on the components of a model, and a cache of the results.

A worker builds the components without weights and has diffusers load the adapter's tensors, from headers
alone (:mod:`runner.placement.adapters`).
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import write_atomically
from runner.model.quantised import ITEMSIZE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from runner.api import Component
    from runner.files.header import Header

ENGINE, LIBRARIES = 2, ("torch", "diffusers", "transformers", "peft", "safetensors")


@dataclass(frozen=True)
class Recipient:
    """A component that an adapter may change: its class, as a dotted string, and its config."""

    cls: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Recipients:
    """The components of a pipeline that adapters may change; sent to workers."""

    pipeline: str
    """The name of the class in diffusers."""
    components: Mapping[str, Recipient]

    def without(self, loaded: Collection[str]) -> Mapping[str, Recipient]:
        """The components that are not in ``loaded``: other stages load them."""
        return {name: one for name, one in self.components.items() if name not in loaded}


@dataclass(frozen=True)
class AdapterReport:
    """What an adapter adds to each component."""

    layers: Mapping[str, Mapping[str, tuple[int, int]]]
    """By component and layer: count of the adapter's weights, and of the layer's outputs per token."""
    notes: tuple[str, ...] = ()
    """What users should know, such as weights without effect."""

    def bytes_in(self, component: Component, dtype: str) -> int:
        """Bytes of the weights that it adds to a component which computes in ``dtype``."""
        kept = {*component.float32.get(dtype, ())}
        return sum(
            numbers * ITEMSIZE[dtype if kept.isdisjoint(layer.split(".")) else "float32"]
            for layer, (numbers, _) in self.layers.get(component.name, {}).items()
        )

    def width(self, component: Component) -> int:
        """The most numbers that an adapted layer of a component returns for a token."""
        return max((width for _, width in self.layers.get(component.name, {}).values()), default=0)


@dataclass(frozen=True)
class AdapterCheck:
    """One adapter to be tried; it is pickled and sent to a worker."""

    shown: str
    """The file's name in messages."""
    header: Header
    recipients: Recipients

    @cached_property
    def digest(self) -> str:
        """A hash of everything that the result depends on."""
        parts = {
            "engine": ENGINE,
            "versions": {name: _version(name) for name in LIBRARIES},
            "pipeline": self.recipients.pipeline,
            "components": {name: asdict(one) for name, one in self.recipients.components.items()},
            "weights": {name: [info.dtype, info.shape] for name, info in self.header.tensors.items()},
            "metadata": self.header.metadata,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def report(self) -> AdapterReport | None:
        """The cached report; None if the adapter was not tried before, or did not fit."""
        if self.digest in _TRIED:
            return _TRIED[self.digest]
        try:
            return as_report(json.loads(self._cache_file.read_bytes()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, report: AdapterReport) -> None:
        """Cache the report."""
        _TRIED[self.digest] = report
        with suppress(StorageError):  # without a cache the next command tries it again
            write_atomically(self._cache_file, json.dumps(asdict(report)).encode())

    @property
    def _cache_file(self) -> Path:
        return cache_folder() / "agreed" / f"lora-{self.digest[:40]}"


_TRIED: dict[str, AdapterReport] = {}
"""By digest: those that this process has tried. The cache may not be writable."""


def as_report(values: Mapping[str, Any]) -> AdapterReport:
    """A report from its JSON; raises LookupError, ValueError, TypeError or AttributeError for another's."""
    layers = {
        component: {layer: (int(numbers), int(width)) for layer, (numbers, width) in found.items()}
        for component, found in values["layers"].items()
    }
    return AdapterReport(layers, tuple(map(str, values["notes"])))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
