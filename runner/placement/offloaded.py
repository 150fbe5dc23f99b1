"""``model-offload`` and ``group-offload``: weights are in RAM, and on the accelerator while they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module

if TYPE_CHECKING:
    from runner.placement.library import MappedModule

HOST = torch.device("cpu")


class ModelSwapper:
    """Swaps whole components: the one that runs is on the device, the others are in RAM."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._modules: list[torch.nn.Module] = []

    def load(self, mapped: MappedModule) -> torch.nn.Module:
        """The component in RAM, with a hook that swaps it in when it runs."""
        module = mapped.materialize(HOST)
        self._modules.append(module)
        add_hook_to_module(module, _SwapInHook(self), append=True)
        return module

    def swap_in(self, module: torch.nn.Module) -> None:
        """Move the other components to RAM, then this one to the device."""
        for other in self._modules:
            if other is not module:
                other.to(HOST)
        module.to(self._device)


class _SwapInHook(ModelHook):  # type: ignore[misc]
    def __init__(self, swapper: ModelSwapper) -> None:
        self._swapper = swapper

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        self._swapper.swap_in(module)
        return args, kwargs


def load_in_groups(mapped: MappedModule, device: torch.device) -> torch.nn.Module:
    """Diffusers' group offloading: layer by layer from pinned RAM, on a copy stream."""
    from diffusers.hooks import apply_group_offloading

    module = mapped.materialize(HOST)
    on_cuda = device.type == "cuda"
    # layers need the least memory on the device, and with overlapping copies are as fast as blocks
    apply_group_offloading(module, device, HOST, offload_type="leaf_level", use_stream=on_cuda)
    return module
