"""Shells: components of other stages, as modules of the right class and config, without weights."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF = (torch.float16, torch.bfloat16)


def shell(
    cls: Any,
    config: Mapping[str, Any],
    buffers: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> torch.nn.Module:
    """A component whose weights are on "meta", in the dtypes that they would be loaded in.

    ``buffers`` are tensors that pipelines read of components that they do not call, by name.
    """
    with torch.device("meta"):
        module = without_weights(cls, config, dtype)
    for name, tensor in buffers.items():
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        placed = tensor.to(device, dtype if tensor.is_floating_point() else None)
        if leaf in part._parameters:  # noqa: SLF001 - a parameter on "meta" takes no other device's data
            part._parameters[leaf] = torch.nn.Parameter(placed, requires_grad=False)  # noqa: SLF001
        else:
            part._buffers[leaf] = placed  # noqa: SLF001
    return module


def without_weights(cls: Any, config: Mapping[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """A component made from its config, in the dtypes that its weights would be loaded in.

    It is called where making tensors takes no memory: on "meta", or among fake tensors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = cls.from_config(dict(config)) if hasattr(cls, "from_config") else _of_transformers(cls, config)
    module: torch.nn.Module = made.eval().requires_grad_(requires_grad=False)
    for name, weight in module.named_parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(_kept(cls, name, dtype) or dtype)
    return module


def _of_transformers(cls: Any, config: Mapping[str, Any]) -> torch.nn.Module:
    made: torch.nn.Module = cls._from_config(cls.config_class.from_dict(dict(config)))
    return made


def _kept(cls: Any, name: str, dtype: torch.dtype) -> torch.dtype | None:
    """float32 for a weight that its class keeps in it where the others are in half precision."""
    is_diffusers = cls.__module__.partition(".")[0] == "diffusers"
    kept = getattr(cls, "_keep_in_fp32_modules_strict", None) or ()
    if is_diffusers or dtype == torch.float16:
        kept = {*kept, *(getattr(cls, "_keep_in_fp32_modules", None) or ())}
    return torch.float32 if dtype in HALF and {*kept} & {*name.split(".")} else None
