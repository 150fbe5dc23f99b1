"""Loading a component with its own library's ``from_pretrained``, safetensors only, no network.

The libraries map files into memory where a weight needs no cast, so that loading costs nothing until the
weights are copied: placements decide what is copied, when, and to where.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.model.files import ComponentFiles


STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# what the libraries keep in float32 by name where the rest is computed in less
KEPT = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")


@dataclass(frozen=True)
class Opened:
    """A component whose weights are still in their files, wherever that is possible."""

    module: torch.nn.Module
    dtype: torch.dtype | None
    """What they are cast to when they are copied; None where the library has cast them."""

    def own(self, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy of a weight in memory of our own, on the device, in the dtype to compute in.

        In a mapped file weights lie at offsets of 8 bytes, where float32 results differ by 1e-6 from those at
        torch's own 64-byte boundaries, and their pages come and go with the page cache.
        """
        return weight.detach().to(device, self.dtype_of(weight), copy=True)

    def dtype_of(self, weight: torch.Tensor) -> torch.dtype:
        """The dtype that a weight computes in."""
        return self.dtype if self.dtype is not None and weight.is_floating_point() else weight.dtype


def open_module(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Opened:
    """Open a component that is to compute in ``dtype``; nothing is read yet, if its class allows that.

    Raises:
        ModelError: the files lack weights of the class.

    """
    folder = files.folder / files.component.path
    stored = [STORED.get(name) for name in files.shapes.dtypes]
    keeps = dtype != torch.float32 and any(getattr(cls, name, None) for name in KEPT)
    if len(stored) != 1 or stored[0] in (None, dtype) or keeps:
        return Opened(from_pretrained(cls, folder, dtype), None)
    module = from_pretrained(cls, folder, stored[0])
    if _computes_buffers(module):
        return Opened(from_pretrained(cls, folder, dtype), None)
    return Opened(module, dtype)


def _computes_buffers(module: torch.nn.Module) -> bool:
    """Whether there are numbers that the class computed itself, in the dtype that it was loaded in."""
    return any(
        name in part._non_persistent_buffers_set and buffer.is_floating_point()  # noqa: SLF001
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    )


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
