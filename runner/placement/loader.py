"""The one door to placements: a component goes in with its placing, a module comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner import placements
from runner.placement import dispatched
from runner.placement.library import from_pretrained, open_module
from runner.stream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Collection

    from runner.model.files import ComponentFiles
    from runner.placement.library import MappedModule
    from runner.placement.offloaded import ModelSwapper
    from runner.placements import ComponentPlacement


class ComponentLoader:
    """Loads the components of one worker, each as its placing says."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._turns: ModelSwapper | None = None
        self.stream = Stream(device)

    def place(self, cls: Any, files: ComponentFiles, placing: ComponentPlacement) -> Any:
        """Load a component; what is no module, a tokenizer or a scheduler, is just loaded.

        Raises:
            ModelError: the files lack weights of the class.

        """
        if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
            return from_pretrained(cls, files, self._dtype)
        module = self._placed(open_module(cls, files, self._dtype), files, placing)
        return module.eval().requires_grad_(requires_grad=False)

    def _placed(
        self, opened: MappedModule, files: ComponentFiles, placing: ComponentPlacement
    ) -> torch.nn.Module:
        match placing.placement:
            case placements.STREAM:
                self._stream(opened, files, placing)
                return opened.materialize(self._device)
            case placements.DEVICE_MAP | placements.SEQUENTIAL_OFFLOAD:
                dispatched.take_away(
                    opened, files, self._device, placing.with_module_names(_names(opened.module))
                )
                return opened.materialize(self._device)
            case placements.MODEL_OFFLOAD:
                return self._offloaded(opened)
            case placements.GROUP_OFFLOAD:
                from runner.placement.offloaded import load_in_groups

                return load_in_groups(opened, self._device)
            case _:
                return opened.materialize(self._device)

    def _stream(self, opened: MappedModule, files: ComponentFiles, placing: ComponentPlacement) -> None:
        """Stream the blocks that the map has away as a whole; the rest that is away comes on demand."""
        names = _names(opened.module)
        blocks = {placements.own_name(block, names) for block in placing.streamed(files.shapes.blocks)}
        named = placing.with_module_names(names)
        self.stream.take(
            *(opened.module, files, blocks.__contains__),
            kept=named.in_ram,
            dtype_of=opened.dtype_of,
        )
        dispatched.take_away(opened, files, self._device, named)

    def _offloaded(self, opened: MappedModule) -> torch.nn.Module:
        from runner.placement.offloaded import ModelSwapper

        self._turns = self._turns or ModelSwapper(self._device)
        return self._turns.load(opened)


def _names(module: torch.nn.Module) -> Collection[str]:
    """Names of a model's modules, parameters and buffers."""
    tables = (module.named_modules, module.named_parameters, module.named_buffers)
    return dict.fromkeys(name for named in tables for name, _ in named(remove_duplicate=False)).keys()
