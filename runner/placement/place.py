"""The one door to placements: a component goes in with its placing, a module comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner.placement import dispatched, offloaded, resident, streamed
from runner.placement.library import Opened, from_pretrained, open_module
from runner.stream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.model.files import ComponentFiles
    from runner.protocol import Placing

RESIDENT, STREAM = "resident", "stream"


class Placer:
    """Loads the components of one worker, each as its placing says."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._turns = offloaded.Turns(device)
        self._placements: dict[str, Callable[[Opened, Placing], torch.nn.Module]] = {
            RESIDENT: lambda opened, _: resident.load(opened, device),
            "device-map": lambda opened, placing: dispatched.load(opened, device, placing),
            "sequential-offload": lambda opened, placing: dispatched.load(opened, device, placing),
            "model-offload": lambda opened, _: self._turns.load(opened),
            "group-offload": lambda opened, _: offloaded.load_in_groups(opened, device),
        }
        self.stream = Stream(device)

    def place(self, cls: Any, files: ComponentFiles, placing: Placing) -> Any:
        """Load a component; what is no module, a tokenizer or a scheduler, is just loaded.

        Raises:
            ModelError: the files lack weights of the class.

        """
        if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
            return from_pretrained(cls, files.folder / files.component.path, self._dtype)
        opened = open_module(cls, files, self._dtype)
        if placing.placement == STREAM:
            module = streamed.load(opened, files, placing, self.stream, self._device)
        else:
            module = self._placements[placing.placement](opened, placing)
        return module.eval().requires_grad_(requires_grad=False)
