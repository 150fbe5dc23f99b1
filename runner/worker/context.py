"""What a stage's code sees: the context of the worker, and one item at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner.model.files import open_component, read_config
from runner.placement.place import RESIDENT, Placer
from runner.plugins import load_object
from runner.protocol import Placing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.api import Component
    from runner.protocol import Job
    from runner.stream.stream import Stream


class CancelledError(BaseException):
    """The supervisor asked to stop. No ``Exception``, so that a stage's own handlers let it pass."""


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
            files = open_component(self._model_folder(), declared)
            placing = self._job.placings.get(component, Placing(RESIDENT))
            self._loaded[component] = self._placer.place(load_object(declared.cls), files, placing)
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


class WorkerItem:
    """Implements :class:`runner.api.Item`."""

    def __init__(
        self,
        id: str,  # noqa: A002 - the word that stage authors read
        params: Any,
        inputs: Mapping[str, Any],
        on_step: Callable[[int, int], None],
    ) -> None:
        self.id = id
        self.params = params
        self.inputs = inputs
        self.saved: Any = None
        self._on_step = on_step

    def step(self, step: int, steps: int, state: Any = None) -> None:  # noqa: ARG002
        self._on_step(int(step), int(steps))
