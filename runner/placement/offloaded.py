"""``model-offload`` and ``group-offload``: weights wait in RAM and visit the accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module

if TYPE_CHECKING:
    from runner.placement.library import MappedModule

HOST = torch.device("cpu")


class ModelSwapper:
    """Components that take turns on the device: whichever runs is there, the others are in RAM."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._modules: list[torch.nn.Module] = []

    def load(self, opened: MappedModule) -> torch.nn.Module:
        """The component in RAM; it comes to the device when it runs, and the others leave."""
        module = opened.materialize(HOST)
        self._modules.append(module)
        add_hook_to_module(module, _SwapInHook(self), append=True)
        return module

    def give_way_to(self, module: torch.nn.Module) -> None:
        """Bring a component to the device, once the others have left it."""
        for other in self._modules:
            if other is not module:
                other.to(HOST)
        module.to(self._device)


class _SwapInHook(ModelHook):  # type: ignore[misc]
    def __init__(self, turns: ModelSwapper) -> None:
        self._turns = turns

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        self._turns.give_way_to(module)
        return args, kwargs


def load_in_groups(opened: MappedModule, device: torch.device) -> torch.nn.Module:
    """Diffusers' group offloading: layer after layer through a stream of copies, from pinned RAM."""
    from diffusers.hooks import apply_group_offloading

    module = opened.materialize(HOST)
    on_cuda = device.type == "cuda"
    # single layers hold least on the device, and are no slower than whole blocks where copies overlap
    apply_group_offloading(module, device, HOST, offload_type="leaf_level", use_stream=on_cuda)
    return module
