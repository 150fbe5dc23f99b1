"""``model-offload`` and ``group-offload``: weights are in RAM, and on the accelerator while they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from runner.stream.blocks import set_weight

if TYPE_CHECKING:
    from runner.accelerator.backends.generic import AcceleratorBackend
    from runner.placement.library import MappedModule

HOST = torch.device("cpu")


class ModelSwapper:
    """Swaps whole components: the one that runs is on the device, the others are in pinned RAM."""

    def __init__(self, backend: AcceleratorBackend) -> None:
        self.backend = backend
        self._components: list[_Swapped] = []

    def load(self, mapped: MappedModule) -> torch.nn.Module:
        """The component in RAM, with a hook that swaps it in when it runs."""
        component = _Swapped(mapped, self.backend)
        self._components.append(component)
        add_hook_to_module(mapped.module, _SwapInHook(self, component), append=True)
        return mapped.module

    def swap_in(self, component: _Swapped) -> None:
        """Free the device of the other components, then copy this one to it."""
        for other in self._components:
            if other is not component:
                other.swap_out()
        component.swap_in()


class _Swapped:
    """A component whose weights are in RAM, and sometimes on the device as well."""

    def __init__(self, mapped: MappedModule, backend: AcceleratorBackend) -> None:
        self._device = backend.device
        self._buffers = list(mapped.module.buffers())
        self._slab = mapped.slab()
        self._in_ram = backend.pinned(self._slab.size)
        self._on_device = False
        with torch.no_grad():
            self._slab.fill(self._in_ram)
            self._slab.bind(self._in_ram)

    def swap_in(self) -> None:
        if not self._on_device:
            self._slab.bind(self._in_ram.to(self._device, non_blocking=True))
            self._on_device = True

    def swap_out(self) -> None:
        """Use the copy in RAM again; only buffers may have changed since, and are copied back."""
        if self._on_device:
            changed = [buffer.to(HOST) for buffer in self._buffers]
            self._slab.bind(self._in_ram)
            for buffer, value in zip(self._buffers, changed, strict=True):
                buffer.copy_(value)
            self._on_device = False


class _SwapInHook(ModelHook):  # type: ignore[misc]
    def __init__(self, swapper: ModelSwapper, component: _Swapped) -> None:
        self._swapper = swapper
        self._component = component
        # diffusers and transformers put a module's inputs there
        self.execution_device = swapper.backend.device

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        del module
        self._swapper.swap_in(self._component)
        return args, kwargs


def load_in_groups(mapped: MappedModule, device: torch.device) -> torch.nn.Module:
    """Diffusers' group offloading: layer by layer from pinned RAM, on a copy stream."""
    from diffusers.hooks import apply_group_offloading

    module = mapped.materialize(HOST)
    _separate_tied(module)
    _keep_buffers(module, device)
    # layers need the least memory on the device, and with overlapping copies are as fast as blocks
    apply_group_offloading(module, device, HOST, offload_type="leaf_level", use_stream=device.type != "cpu")
    return module


def _separate_tied(module: torch.nn.Module) -> None:
    """Give each module its own parameter: to move one layer's would move another's while it computes."""
    seen: set[torch.nn.Parameter] = set()
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            if parameter in seen:
                set_weight(part, name, torch.nn.Parameter(parameter.data, requires_grad=False))
            seen.add(parameter)


def _keep_buffers(module: torch.nn.Module, device: torch.device) -> None:
    """Keep buffers on the device, as plain attributes: group offloading loses what is written to them."""
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            delattr(part, name)
            setattr(part, name, buffer.to(device))
