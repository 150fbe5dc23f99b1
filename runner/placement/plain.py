"""Creates modules of classes without ``from_pretrained``, from ``config.json`` and the weights."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from runner.placement.agreement import Disagreement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.model.files import ComponentFiles


def open_plain(cls: Any, files: ComponentFiles) -> tuple[torch.nn.Module, Disagreement]:
    """The module with its weights mapped from the files, and how these differ from its own."""
    config = files.own_folder / "config.json"
    options = json.loads(config.read_bytes()) if config.exists() else {}
    weights: dict[str, torch.Tensor] = {}
    for name in files.headers:
        weights |= load_file(files.folder / name)
    return fill_plain(cls, options, weights)


def fill_plain(
    cls: Any, options: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[torch.nn.Module, Disagreement]:
    """A module of the class with these weights, and how they differ from its own."""
    module = _create(cls, options)
    own = module.state_dict()
    for name in weights.keys() & own.keys():
        if not (weights[name].is_floating_point() and own[name].is_floating_point()):
            weights[name] = weights[name].to(own[name].dtype)  # floating-point weights are cast later
    tied = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        tied[parameter].append(name)
    mismatched = {n for n in weights.keys() & own.keys() if weights[n].shape != own[n].shape}
    report = module.load_state_dict(
        {name: weight for name, weight in weights.items() if name not in mismatched},
        strict=False,
        assign=True,
    )
    lacking = {*report.missing_keys} - mismatched
    for empty, names in tied.items():
        there = [loaded for name in names if (loaded := module.get_parameter(name)) is not empty]
        for name in names if there else ():
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, there[-1])
            lacking.discard(name)
    shapes = [(name, weights[name].shape, own[name].shape) for name in mismatched]
    differences = {
        "missing_keys": lacking,
        "unexpected_keys": report.unexpected_keys,
        "mismatched_keys": shapes,
    }
    return module, Disagreement.of(differences)


def _create(cls: Any, options: dict[str, Any]) -> torch.nn.Module:
    """A module of the class, without memory for its parameters if the class allows that."""
    with suppress(Exception), _empty_parameters():
        module: torch.nn.Module = cls(**options)
        if not _has_emptied(module):
            return module
    # it computes with its parameters, or its constructor fails anyway, and then raises here
    made: torch.nn.Module = cls(**options)
    return made


def _has_emptied(module: torch.nn.Module) -> bool:
    """Whether other tensors of the module were computed from empty parameters."""
    own = {"_parameters", "_modules"}
    kept = [{k: v for k, v in vars(part).items() if k not in own} for part in module.modules()]
    return any(isinstance(value, torch.Tensor) and value.is_meta for value in pytree.tree_leaves(kept))


@contextmanager
def _empty_parameters() -> Iterator[None]:
    """Create parameters on "meta" for the modules that are constructed meanwhile."""
    register = torch.nn.Module.register_parameter
    emptied = WeakIdKeyDictionary()

    def register_empty(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            if parameter not in emptied:  # a shared parameter stays shared
                meta = parameter.detach().to("meta")
                emptied[parameter] = torch.nn.Parameter(meta, requires_grad=parameter.requires_grad)
            parameter = emptied[parameter]
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_empty  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
