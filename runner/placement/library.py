"""Loading a component with its own library's ``from_pretrained``, safetensors only, no network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def from_pretrained(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """An object of ``cls`` from a folder: a module in ``dtype``, or a tokenizer or scheduler.

    A plain ``nn.Module`` without ``from_pretrained`` is made from ``config.json`` and the weights beside it.

    Raises:
        ModelError: the files lack weights of the class.

    """
    module = isinstance(cls, type) and issubclass(cls, torch.nn.Module)
    if not hasattr(cls, "from_pretrained"):
        return _plain_module(cls, folder, dtype)
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


def _plain_module(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = folder / "config.json"
    module: torch.nn.Module = cls(**(json.loads(config.read_bytes()) if config.exists() else {}))
    lacking = set(module.state_dict())
    for file in sorted(folder.glob("*.safetensors")):
        if "." not in file.stem:  # variants are no part of the key, see runner.model.files
            weights = load_file(file)
            module.load_state_dict(weights, strict=False)
            lacking -= set(weights)
    tied = {tensor.data_ptr() for name, tensor in module.state_dict().items() if name not in lacking}
    lacking = {name for name in lacking if module.state_dict()[name].data_ptr() not in tied}
    _check_complete(cls, folder, {"missing_keys": lacking})
    return module.to(dtype)
