"""Loads components with their planned placement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner import placements
from runner.accelerator.backends import backend_of
from runner.accelerator.backends.generic import AcceleratorBackend
from runner.errors import BudgetError
from runner.placement import dispatched
from runner.placement.library import from_pretrained, open_module
from runner.stream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Collection

    from runner.model.files import ComponentFiles
    from runner.placement.library import MappedModule
    from runner.placement.offloaded import ModelSwapper
    from runner.placements import ComponentPlacement
    from runner.protocol import JobAdapters


class ComponentLoader:
    """Loads the components of one worker."""

    def __init__(self, device: torch.device, dtype: torch.dtype, adapters: JobAdapters | None = None) -> None:
        """``adapters`` are added to the components that they are for."""
        self._device = device
        self._dtype = dtype
        self._adapters = adapters
        self._swapper: ModelSwapper | None = None
        self.stream = Stream(device)

    def load(self, cls: Any, files: ComponentFiles, placement: ComponentPlacement) -> Any:
        """Load a component. Objects that are not modules (tokenizers, schedulers) ignore the placement.

        Raises:
            ModelError: the weights in the files are not those of the class.

        """
        if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
            return from_pretrained(cls, files, self._dtype)
        # quantised tensors lack some of the operations that torch asks of them in inference mode
        with torch.inference_mode(mode=False), torch.no_grad():
            mapped = self._adapted(open_module(cls, files, self._dtype), files.component.name)
            module = self._load_weights(mapped, files, placement)
            return module.eval().requires_grad_(requires_grad=False)

    def _adapted(self, mapped: MappedModule, component: str) -> MappedModule:
        """The component with its adapters."""
        if self._adapters is None or component not in self._adapters.recipients.components:
            return mapped
        from runner.placement.adapters import AdapterFile, adapter_name, attach

        files = [AdapterFile(path, adapter_name(n)) for n, path in self._adapters.files.items()]
        return attach(mapped, component, files, self._adapters.recipients)

    def _load_weights(
        self, mapped: MappedModule, files: ComponentFiles, placement: ComponentPlacement
    ) -> torch.nn.Module:
        match placement.placement:
            case placements.STREAM:
                self._stream(mapped, files, placement)
                return mapped.materialize(self._device)
            case placements.DEVICE_MAP | placements.SEQUENTIAL_OFFLOAD:
                dispatched.offload(
                    mapped, files, self._device, placement.with_module_names(_names(mapped.module))
                )
                return mapped.materialize(self._device)
            case placements.MODEL_OFFLOAD:
                return self._swapped(mapped)
            case placements.GROUP_OFFLOAD:
                from runner.placement.offloaded import load_in_groups

                return load_in_groups(mapped, self._device)
            case _:
                return mapped.materialize(self._device)

    def _stream(self, mapped: MappedModule, files: ComponentFiles, placement: ComponentPlacement) -> None:
        """Stream the blocks that are offloaded as a whole; load other offloaded weights on demand."""
        names = _names(mapped.module)
        blocks = {placements.own_name(block, names) for block in placement.streamed(files.shapes.blocks)}
        named = placement.with_module_names(names)
        self.stream.add(
            mapped.module, files, blocks.__contains__, in_ram=named.in_ram, source_of=mapped.source_of
        )
        dispatched.offload(mapped, files, self._device, named)

    def _accelerator(self) -> AcceleratorBackend:
        backend = backend_of(self._device)
        if not isinstance(backend, AcceleratorBackend):
            raise BudgetError(
                f"{placements.MODEL_OFFLOAD} needs an accelerator, and the device is {self._device}"
            )
        return backend

    def _swapped(self, mapped: MappedModule) -> torch.nn.Module:
        from runner.placement.offloaded import ModelSwapper

        self._swapper = self._swapper or ModelSwapper(self._accelerator())
        return self._swapper.load(mapped)


def _names(module: torch.nn.Module) -> Collection[str]:
    """Names of a model's modules, parameters and buffers, as they are without adapters."""
    tables = (module.named_modules, module.named_parameters, module.named_buffers)
    every = (placements.unwrapped(name) for named in tables for name, _ in named(remove_duplicate=False))
    return dict.fromkeys(every).keys()
