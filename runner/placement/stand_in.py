"""Checks a component's weights with its library's own loading code, from names and shapes alone.

The library renames, ties and omits weights, and reports mismatches. No weight is read or takes memory.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from runner.model.bitsandbytes import BITSANDBYTES
from runner.model.quantised import without_quantization
from runner.model.selection import CONFIG
from runner.placement import bitsandbytes
from runner.placement.agreement import Disagreement, check_agreement
from runner.placement.families import families
from runner.placement.library import without_weights
from runner.placement.plain import fill_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.model.shapes import ComponentShapes

Weights = dict[str, torch.Tensor]
FLOATING = ("F", "BF")  # prefixes of safetensors' floating-point dtypes
_OPTIONS: Mapping[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def check_without_files(cls: Any, shapes: ComponentShapes, model: Path) -> None:
    """Check that the weights of a component are those of its class; ``model`` is an empty scratch folder.

    Raises:
        ModelError: they are not.

    """
    if shapes.quantisation is not None and shapes.quantisation.method == BITSANDBYTES:
        module = without_weights(cls, shapes.config)
        layers = bitsandbytes.layers_of(cls, module, shapes.config)
        shapes = bitsandbytes.with_sides(shapes, module, layers)
    folder = model / shapes.component.path
    folder.mkdir(parents=True, exist_ok=True)  # it may be the root
    if shapes.config:
        # quantised weights are checked by the shapes of what they stand for
        config = without_quantization(shapes.config)
        (folder / CONFIG).write_text(json.dumps(config))
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
    """Make safetensors return these for any file: diffusers takes weights only from files."""
    load_file = safetensors.torch.load_file
    safetensors.torch.load_file = lambda *_args, **_options: dict(weights)
    try:
        yield
    finally:
        safetensors.torch.load_file = load_file


def _weights(shapes: ComponentShapes) -> Weights:
    """Tensors of these shapes: views of untouched memory, for which the system allocates no pages."""
    most = max((info.elements for info in shapes.weights.values()), default=0)
    floats, integers = torch.empty(most, dtype=torch.float32), torch.empty(most, dtype=torch.int64)
    quantised = shapes.quantisation.weights if shapes.quantisation else ()
    return {
        name: (floats if name in quantised or info.dtype.startswith(FLOATING) else integers)[
            : math.prod(info.shape)
        ].view(info.shape)
        for name, info in shapes.weights.items()
    }
