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

from runner.placement.agreement import Disagreement, check_agreement
from runner.placement.casts import DeferredCasts
from runner.placement.plain import open_plain
from runner.stream.blocks import OffloadedParameter
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import Component
    from runner.model.files import ComponentFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MappedModule:
    """A component whose weights are still in their files, wherever that is possible."""

    module: torch.nn.Module
    dtypes: Mapping[torch.Tensor, torch.dtype]
    """What they are to be cast to when they are copied, where they are not in it already."""

    def copy(self, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy of a weight in memory of our own, on the device, in the dtype to compute in.

        In a mapped file weights lie at offsets of 8 bytes, where float32 results differ by 1e-6 from those at
        torch's own 64-byte boundaries, and their pages come and go with the page cache.
        """
        return weight.detach().to(device, self.dtype_of(weight), copy=True)

    def materialize(self, device: torch.device) -> torch.nn.Module:
        """The module with all weights that have not been taken elsewhere owned, on the device."""
        with torch.no_grad():
            for tensor in chain(self.module.parameters(), self.module.buffers()):
                if not isinstance(tensor, OffloadedParameter):
                    tensor.data = self.copy(tensor, device)
        return self.module

    def dtype_of(self, weight: torch.Tensor) -> torch.dtype:
        """The dtype that a weight computes in."""
        return self.dtypes.get(weight, weight.dtype)


def open_module(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> MappedModule:
    """Open a component that is to compute in ``dtype``; nothing is read yet, if its class allows that.

    Raises:
        ModelError: the files hold other weights than those of the class.

    """
    opened = _open_uncast(cls, files, dtype) or MappedModule(from_pretrained(cls, files, dtype), {})
    _compare_with_plan(opened, files.component, dtype)
    return opened


def _open_uncast(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> MappedModule | None:
    """None for a class that computes with its weights while it is loaded."""
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # transformers' other threads would cast unseen
    with DeferredCasts(files) as casts:
        module = from_pretrained(cls, files, dtype)
    return None if casts.computed else MappedModule(module, casts.dtypes(module))


def _compare_with_plan(opened: MappedModule, component: Component, dtype: torch.dtype) -> None:
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


def from_pretrained(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Any:
    """An object of ``cls`` from its files: a module in ``dtype``, or a tokenizer or scheduler.

    A plain ``nn.Module`` without ``from_pretrained`` is made from ``config.json`` and the weights beside it.

    Raises:
        ModelError: the files hold other weights than those of the class.

    """
    folder = files.own_folder
    module = isinstance(cls, type) and issubclass(cls, torch.nn.Module)
    if not hasattr(cls, "from_pretrained"):
        plain, found = open_plain(cls, files)
        check_agreement(cls, files.component, files.folder, found)
        return plain.to(dtype)
    if not module:
        return cls.from_pretrained(str(folder))
    options: dict[str, Any] = {"variant": files.variant} if files.variant else {}
    if has_own_loader(cls):
        return cls.from_pretrained(str(folder), **options).to(dtype)
    if "diffusers" in families(cls):
        options |= {"torch_dtype": dtype, "low_cpu_mem_usage": True}
    else:
        options |= {"dtype": dtype, **_following_index(cls, files)}
    loaded, report = cls.from_pretrained(
        str(folder),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are reported with all else, and refused here
        **options,
    )
    check_agreement(cls, files.component, files.folder, Disagreement.of(report))
    return loaded


def has_own_loader(cls: Any) -> bool:
    """Whether it has a ``from_pretrained`` that is neither library's, and reports nothing."""
    return hasattr(cls, "from_pretrained") and not families(cls) & {"diffusers", "transformers"}


def families(cls: Any) -> set[str]:
    """The top-level packages of a class and its bases."""
    return {base.__module__.partition(".")[0] for base in cls.__mro__}


def _following_index(cls: Any, files: ComponentFiles) -> dict[str, Any]:
    """What has transformers load the shards where there is one whole file too, which it would take first."""
    whole = f"model.{files.variant}.safetensors" if files.variant else "model.safetensors"
    if files.index is None or not (files.own_folder / whole).exists():
        return {}
    config = cls.config_class.from_pretrained(str(files.own_folder))
    config.transformers_weights = files.index
    return {"config": config}
