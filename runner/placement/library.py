"""Loading a component with its own library's ``from_pretrained``, safetensors only, no network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path


def from_pretrained(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """An object of ``cls`` from a folder: a module in ``dtype``, or a tokenizer or scheduler.

    A plain ``nn.Module`` without ``from_pretrained`` is made from ``config.json`` and the weights beside it.
    """
    module = isinstance(cls, type) and issubclass(cls, torch.nn.Module)
    if not hasattr(cls, "from_pretrained"):
        return _plain_module(cls, folder, dtype)
    if not module:
        return cls.from_pretrained(str(folder))
    family = {base.__module__.partition(".")[0] for base in cls.__mro__}
    if "diffusers" in family:
        options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
    elif "transformers" in family:
        options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    else:
        return cls.from_pretrained(str(folder)).to(dtype)
    return cls.from_pretrained(str(folder), **options)


def _plain_module(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    from safetensors.torch import load_file

    config = folder / "config.json"
    module = cls(**(json.loads(config.read_bytes()) if config.exists() else {}))
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    module.load_state_dict(weights)
    return module.to(dtype)
