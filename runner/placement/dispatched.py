"""``device-map`` and ``sequential-offload``: accelerate's hooks bring a weight when its layer runs.

Weights on the tier ``disk`` stay in the checkpoint's own files: no second copy of the model is written, as
accelerate's ``offload_folder`` would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.utils import PrefixedDataset

from runner.stream.blocks import Absent

if TYPE_CHECKING:
    from runner.placement.library import Opened
    from runner.protocol import Placing

HOST = torch.device("cpu")


def load(opened: Opened, device: torch.device, placing: Placing) -> torch.nn.Module:
    """The component with what the placing's map names on ``cpu`` or ``disk``, and all else on the device."""
    module = opened.module
    offloaded = _Offloaded(opened)
    with torch.no_grad():
        for name, weight in list(module.named_parameters(remove_duplicate=False)):
            tier = placing.tier(name)
            if tier == "disk":
                offloaded.mapped[name] = weight
            elif tier == "cpu" and device != HOST:
                offloaded.held[name] = opened.own(weight, HOST)
            else:
                continue
            _leave_empty(module, name, opened.dtype_of(weight))
    opened.bring(device)
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if any(prefix + own in offloaded for own, _ in part.named_parameters(recurse=False)):
            hook = _Bringing(device, offload=True, weights_map=PrefixedDataset(offloaded, prefix))
            add_hook_to_module(part, hook, append=True)
    return module


class _Bringing(AlignDevicesHook):  # type: ignore[misc]
    """accelerate's own; between the layer's calls its weights refuse to be computed with."""

    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        hooked: torch.nn.Module = super().init_hook(module)
        _put_away(hooked)
        return hooked

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, Absent):  # what is brought is made of the kind that is there
                _put(module, name, torch.nn.Parameter(parameter.shell, requires_grad=False))
        return super().pre_forward(module, *args, **kwargs)

    def post_forward(self, module: torch.nn.Module, output: Any) -> Any:
        output = super().post_forward(module, output)
        _put_away(module)
        return output


def _put_away(module: torch.nn.Module) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.is_meta and not isinstance(parameter, Absent):
            _put(module, name, Absent.of(parameter.detach()))


def _put(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    module._parameters[name] = parameter  # noqa: SLF001


class _Offloaded(Mapping[str, torch.Tensor]):
    """Weights by name, each brought into memory when it is asked for."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.mapped: dict[str, torch.Tensor] = {}
        self.held: dict[str, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self.held:
            return self.held[name]
        return self._opened.own(self.mapped[name], HOST)

    def __contains__(self, name: object) -> bool:
        return name in self.held or name in self.mapped

    def __iter__(self) -> Iterator[str]:
        yield from (*self.held, *self.mapped)

    def __len__(self) -> int:
        return len(self.held) + len(self.mapped)


def _leave_empty(module: torch.nn.Module, name: str, dtype: torch.dtype) -> None:
    """Leave a weight's shape and dtype in its place: code may ask for both before the layer runs."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    empty = torch.empty_like(owner.get_parameter(leaf), dtype=dtype, device="meta")
    owner.register_parameter(leaf, torch.nn.Parameter(empty, requires_grad=False))
