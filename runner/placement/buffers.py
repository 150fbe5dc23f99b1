"""Reads single tensors of a component whose weights are not loaded."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from safetensors import safe_open

if TYPE_CHECKING:
    import torch

    from runner.model.files import ComponentFiles


def read_buffers(files: ComponentFiles) -> dict[str, torch.Tensor]:
    """Tensors whose names match ``Component.buffers``, on the CPU in the dtype of the file."""
    patterns = files.component.buffers
    found: dict[str, torch.Tensor] = {}
    for path, header in files.headers.items():
        names = [name for name in header.tensors if any(fnmatchcase(name, one) for one in patterns)]
        with safe_open(files.folder / path, framework="pt") as file:
            # copies have torch's own alignment, which bit-exact results require
            found |= {name: file.get_tensor(name).clone() for name in names}
    return found
