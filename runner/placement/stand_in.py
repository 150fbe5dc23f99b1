"""Loading a component with its own library without its files: from names and shapes alone.

The library's own code renames, ties and leaves out, and reports what does not fit. No weight is read, and
none takes memory.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from runner.model.selection import CONFIG
from runner.placement.agreement import Disagreement, check_agreement
from runner.placement.library import families
from runner.placement.plain import fill_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.model.shapes import ComponentShapes

Weights = dict[str, torch.Tensor]
FLOATING = ("F", "BF")  # how the format's names of floating dtypes begin
_OPTIONS: Mapping[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def check_without_files(cls: Any, shapes: ComponentShapes, model: Path) -> None:
    """See whether the weights of a component agree with its class; ``model`` is an empty folder to work in.

    Raises:
        ModelError: they do not.

    """
    folder = model / shapes.component.path
    folder.mkdir(parents=True)
    if shapes.config:
        (folder / CONFIG).write_text(json.dumps(shapes.config))
    weights = _weights(shapes)
    if not hasattr(cls, "from_pretrained"):
        _, found = fill_plain(cls, dict(shapes.config), weights)
    elif "diffusers" in families(cls):
        found = _by_diffusers(cls, folder, weights)
    else:
        config = cls.config_class.from_pretrained(folder)
        options = {**_OPTIONS, "dtype": torch.float32, "device_map": {"": "meta"}}
        found = Disagreement.of(cls.from_pretrained(None, config=config, state_dict=weights, **options)[1])
    check_agreement(cls, shapes.component, model, found)


def _by_diffusers(cls: Any, folder: Path, weights: Weights) -> Disagreement:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.touch()
    with _read_as(weights):
        _, report = cls.from_pretrained(
            str(folder), use_safetensors=True, torch_dtype=torch.float32, low_cpu_mem_usage=True, **_OPTIONS
        )
    return Disagreement.of(report)


@contextmanager
def _read_as(weights: Weights) -> Iterator[None]:
    """Let every safetensors file hold these: diffusers takes weights from files alone."""
    load_file = safetensors.torch.load_file
    safetensors.torch.load_file = lambda *_args, **_options: dict(weights)
    try:
        yield
    finally:
        safetensors.torch.load_file = load_file


def _weights(shapes: ComponentShapes) -> Weights:
    """Tensors of these shapes in memory that nothing ever touches: the system gives none for it."""
    most = max((info.elements for info in shapes.tensors.values()), default=0)
    floats, integers = torch.empty(most, dtype=torch.float32), torch.empty(most, dtype=torch.int64)
    return {
        name: (floats if info.dtype.startswith(FLOATING) else integers)[: math.prod(info.shape)].view(
            info.shape
        )
        for name, info in shapes.tensors.items()
    }
