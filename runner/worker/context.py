"""What a stage's code sees of the worker: where to compute, and its components."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError, RunnerError, in_words
from runner.model.files import open_component, read_config
from runner.placement.place import Placer
from runner.plugins import load_object
from runner.protocol import RESIDENT, Placing
from runner.redact import redact
from runner.worker.allocator import is_out_of_memory
from runner.worker.item import check_at_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api import Component
    from runner.protocol import Job
    from runner.stream.stream import Stream


def _load_error(error: Exception, cls: Any, component: Component, folder: Path) -> Exception:
    """What a library says of files that are not what they should be, as the user's to mend."""
    library = hasattr(cls, "from_pretrained")
    mismatch = isinstance(error, RuntimeError) and "size mismatch" in str(error)
    if isinstance(error, RunnerError) or is_out_of_memory(error) or not (library or mismatch):
        return error
    sys.stderr.write(redact(traceback.format_exc()))
    first = in_words(error).strip().splitlines()[0]
    return ModelError(
        f"component '{component.name}' cannot be loaded from {folder / component.path}: {first[:500]}"
    )


class WorkerContext:
    """Implements :class:`runner.api.Context`."""

    def __init__(self, job: Job) -> None:
        self.device = torch.device(job.device)
        self.dtype: torch.dtype = getattr(torch, job.dtype)
        self._job = job
        self._loaded: dict[str, Any] = {}
        self._placer = Placer(self.device, self.dtype)

    def load(self, component: str) -> Any:
        if component not in self._loaded:
            declared = self._component(component)
            files = open_component(self._model_folder(), declared, self._job.variant)
            placing = self._job.placings.get(component, Placing(RESIDENT))
            cls = load_object(declared.cls)
            try:
                loaded = self._placer.place(cls, files, placing)
            except Exception as error:
                raise _load_error(error, cls, declared, files.folder) from error
            if isinstance(loaded, torch.nn.Module):
                check_at_blocks(loaded)
            self._loaded[component] = loaded
        return self._loaded[component]

    @property
    def stream(self) -> Stream:
        """What streams the weights of this worker's components, if any are streamed."""
        return self._placer.stream

    def config(self, component: str) -> Mapping[str, Any]:
        return read_config(self._model_folder(), self._component(component))

    def _model_folder(self) -> Any:
        if self._job.model is None:
            raise LookupError(f"{self._job.stage.name} declares no components")
        return self._job.model

    def _component(self, name: str) -> Component:
        for component in self._job.stage.components:
            if component.name == name:
                return component
        raise LookupError(f"{self._job.stage.name} declares no component '{name}'")
