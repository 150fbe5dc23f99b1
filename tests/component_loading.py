"""Loading a component from a folder: as a worker would, and as its library does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin

from runner.api import Component
from runner.model.files import open_component
from runner.placement.loader import ComponentLoader
from runner.placements import ComponentPlacement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def place(
    placement: str,
    cls: Any,
    folder: Path,
    dtype: torch.dtype,
    device_map: Mapping[str, str] | None = None,
    loader: ComponentLoader | None = None,
    variant: str | None = None,
) -> Any:
    """The component in ``folder``, placed on the CPU; with others of a worker, if its loader is given."""
    component = Component(folder.name, f"{cls.__module__}:{cls.__qualname__}")
    files = open_component(folder.parent, component, variant)
    loader = loader or ComponentLoader(torch.device("cpu"), dtype)
    return loader.load(cls, files, ComponentPlacement(placement, device_map or {}))


def reference(cls: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """The model as its library loads it, on cloned parameters (mapped ones lie at other boundaries)."""
    named = "torch_dtype" if issubclass(cls, ModelMixin) else "dtype"
    module = cls.from_pretrained(folder, **{named: dtype}, **options)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    return module.eval()
