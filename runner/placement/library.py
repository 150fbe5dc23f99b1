"""Loading a component with its own library's ``from_pretrained``, safetensors only, no network.

The libraries map files into memory, so that loading costs nothing until the weights are copied: placements
decide what is copied, when, and to where.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.manifest.units import format_size
from runner.placement.casts import WaitingCasts
from runner.placement.plain import open_plain
from runner.stream.blocks import Absent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api import Component
    from runner.model.files import ComponentFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A component whose weights are still in their files, wherever that is possible."""

    module: torch.nn.Module
    dtypes: Mapping[torch.Tensor, torch.dtype]
    """What they are to be cast to when they are copied, where they are not in it already."""

    def own(self, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy of a weight in memory of our own, on the device, in the dtype to compute in.

        In a mapped file weights lie at offsets of 8 bytes, where float32 results differ by 1e-6 from those at
        torch's own 64-byte boundaries, and their pages come and go with the page cache.
        """
        return weight.detach().to(device, self.dtype_of(weight), copy=True)

    def bring(self, device: torch.device) -> torch.nn.Module:
        """The module with all weights that have not been taken elsewhere owned, on the device."""
        with torch.no_grad():
            for tensor in chain(self.module.parameters(), self.module.buffers()):
                if not isinstance(tensor, Absent):
                    tensor.data = self.own(tensor, device)
        return self.module

    def dtype_of(self, weight: torch.Tensor) -> torch.dtype:
        """The dtype that a weight computes in."""
        return self.dtypes.get(weight, weight.dtype)


def open_module(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Opened:
    """Open a component that is to compute in ``dtype``; nothing is read yet, if its class allows that.

    Raises:
        ModelError: the files lack weights of the class.

    """
    folder = files.folder / files.component.path
    opened = _open_uncast(cls, files, dtype) or Opened(from_pretrained(cls, folder, dtype), {})
    _compare_with_plan(opened, files.component, dtype)
    return opened


def _open_uncast(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Opened | None:
    """None for a class that computes with its weights while it is loaded."""
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # transformers' other threads would cast unseen
    with WaitingCasts(files) as casts:
        module = from_pretrained(cls, files.folder / files.component.path, dtype)
    return None if casts.computed else Opened(module, casts.dtypes(module))


def _compare_with_plan(opened: Opened, component: Component, dtype: torch.dtype) -> None:
    """The plan takes the plugin's word for what stays in float32: tell its author where that is wrong."""
    if dtype == torch.float32:
        return
    beside = str(dtype).removeprefix("torch.")
    declared = {*component.float32.get(beside, ())}
    wrong = {
        name: weight.numel() * (4 - dtype.itemsize)
        for name, weight in opened.module.named_parameters()
        if (opened.dtype_of(weight) == torch.float32) != bool(declared & {*name.split(".")})
    }
    if wrong:
        _log.warning(
            "%s: what it keeps in float32 beside %s is not what its Component.float32 says, for %d weights "
            "(%s among them); the plan is off by %s",
            *(component.name, beside, len(wrong), next(iter(wrong)), format_size(sum(wrong.values()))),
        )


def from_pretrained(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """An object of ``cls`` from a folder: a module in ``dtype``, or a tokenizer or scheduler.

    A plain ``nn.Module`` without ``from_pretrained`` is made from ``config.json`` and the weights beside it.

    Raises:
        ModelError: the files lack weights of the class.

    """
    module = isinstance(cls, type) and issubclass(cls, torch.nn.Module)
    if not hasattr(cls, "from_pretrained"):
        plain, lacking = open_plain(cls, folder)
        _check_complete(cls, folder, {"missing_keys": lacking})
        return plain.to(dtype)
    if not module:
        return cls.from_pretrained(str(folder))
    family = {base.__module__.partition(".")[0] for base in cls.__mro__}
    if "diffusers" in family:
        options = {"torch_dtype": dtype, "low_cpu_mem_usage": True}
    elif "transformers" in family:
        options = {"dtype": dtype}
    else:
        return cls.from_pretrained(str(folder)).to(dtype)
    loaded, told = cls.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **options
    )
    _check_complete(cls, folder, told)
    return loaded


def _check_complete(cls: Any, folder: Path, told: Mapping[str, Any]) -> None:
    """The libraries fill weights that they do not find with random numbers, and go on."""
    missing = sorted(map(str, told.get("missing_keys", ())))
    if missing:
        raise ModelError(
            f"the files in {folder} lack {len(missing)} weights of {cls.__name__}, {missing[0]} among them: "
            "it is another model, or saved by a version of its library that names weights differently"
        )
