"""Copies of the demo model with one fault each: what is done to the folder, and words of what is said of it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from checkpoints import DEMO
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Weights = dict[str, torch.Tensor]
    Fault = Callable[[Path], Any]

FP8 = torch.float8_e4m3fn


def demo(folder: Path, *faults: Fault) -> Path:
    """A copy of the demo model with these faults."""
    shutil.copytree(DEMO, folder)
    for fault in faults:
        fault(folder)
    return folder


def weights(component: str, change: Callable[[Weights], Weights]) -> Fault:
    def act(model: Path) -> None:
        (file,) = (model / component).glob("*.safetensors")
        changed = {name: weight.clone().contiguous() for name, weight in change(load_file(file)).items()}
        save_file(changed, file, {"format": "pt"})

    return act


def config(path: str, **values: Any) -> Fault:
    """Set keys of a JSON table; those that are None are removed."""

    def act(model: Path) -> None:
        table = {**json.loads((model / path).read_text()), **values}
        (model / path).write_text(json.dumps({k: v for k, v in table.items() if v is not None}))

    return act


def remove(*paths: str) -> Fault:
    def act(model: Path) -> None:
        for path in paths:
            (model / path).unlink()

    return act


def write(path: str, text: str) -> Fault:
    return lambda model: (model / path).write_text(text)


def added(component: str, name: str) -> Fault:
    return weights(component, lambda found: {**found, name: torch.ones(4, 4)})


def renamed(component: str, old: str, new: str) -> Fault:
    """Give the weights that begin with ``old`` another beginning."""
    return weights(
        component,
        lambda found: {new + n.removeprefix(old) if n.startswith(old) else n: w for n, w in found.items()},
    )


def in_fp8(found: Weights) -> Weights:
    """Plain fp8 storage, without scales."""
    return {name: weight.to(FP8) if weight.ndim == 2 else weight for name, weight in found.items()}


def scaled(found: Weights) -> Weights:
    """Weights in fp8 with a scale beside each, as other tools write them."""
    scales = {f"{name}_scale": torch.ones(1) for name, weight in found.items() if weight.ndim == 2}
    return {**in_fp8(found), **scales}
