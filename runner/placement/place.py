"""The one door to placements: a component goes in with its placing, a module comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner.placement import dispatched, offloaded
from runner.placement.library import Opened, from_pretrained, open_module
from runner.protocol import (
    DEVICE_MAP,
    GROUP_OFFLOAD,
    MODEL_OFFLOAD,
    RESIDENT,
    SEQUENTIAL_OFFLOAD,
    STREAM,
)
from runner.stream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.model.files import ComponentFiles
    from runner.protocol import Placing


class Placer:
    """Loads the components of one worker, each as its placing says."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._turns = offloaded.Turns(device)
        self._placements: dict[str, Callable[[Opened, Placing], torch.nn.Module]] = {
            RESIDENT: lambda opened, _: opened.bring(device),
            DEVICE_MAP: lambda opened, placing: dispatched.load(opened, device, placing),
            SEQUENTIAL_OFFLOAD: lambda opened, placing: dispatched.load(opened, device, placing),
            MODEL_OFFLOAD: lambda opened, _: self._turns.load(opened),
            GROUP_OFFLOAD: lambda opened, _: offloaded.load_in_groups(opened, device),
        }
        self.stream = Stream(device)

    def place(self, cls: Any, files: ComponentFiles, placing: Placing) -> Any:
        """Load a component; what is no module, a tokenizer or a scheduler, is just loaded.

        Raises:
            ModelError: the files lack weights of the class.

        """
        if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
            return from_pretrained(cls, files, self._dtype)
        opened = open_module(cls, files, self._dtype)
        placing = placing.within([name for name, _ in opened.module.named_modules()])
        if placing.placement == STREAM:
            self.stream.take(opened.module, files, placing.names, placing.keeps, opened.dtype_of)
            module = opened.bring(self._device)
        else:
            module = self._placements[placing.placement](opened, placing)
        return module.eval().requires_grad_(requires_grad=False)
