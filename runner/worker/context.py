"""The context that a stage's code receives: device, dtype and components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner.api import DTYPE_KINDS, Tensor
from runner.model.checks.request import encoder_of, vocabulary_size
from runner.model.fingerprint import refuse_changed
from runner.placement.buffers import read_buffers
from runner.placement.loader import ComponentLoader
from runner.placement.vocabulary import check_vocabulary, is_tokenizer
from runner.placements import RESIDENT, ComponentPlacement
from runner.plugins import load_object
from runner.worker import finite
from runner.worker.item import check_at_blocks
from runner.worker.load_errors import as_model_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import Component, Output
    from runner.model.files import ComponentPlace
    from runner.protocol import Job
    from runner.stream.stream import Stream


def _hides_numbers(output: Output) -> bool:
    """Whether an output cannot show that it was computed from NaN."""
    return not isinstance(output, Tensor) or output.dtype not in ("floating", *DTYPE_KINDS["floating"])


class WorkerContext:
    """Implements :class:`runner.api.Context`."""

    def __init__(self, job: Job) -> None:
        self.device = torch.device(job.device)
        self.dtype: torch.dtype = getattr(torch, job.dtype)
        self.model = job.facts
        self._job = job
        self._loaded: dict[str, Any] = {}
        self._loader = ComponentLoader(self.device, self.dtype, job.adapters)

    def load(self, component: str) -> Any:
        if component not in self._loaded:
            declared = self._component(component)
            files = self._place(component).open()
            placement = self._job.placements.get(component, ComponentPlacement(RESIDENT))
            cls = load_object(declared.cls)
            try:
                loaded = self._loader.load(cls, files, placement)
            except Exception as error:
                raise as_model_error(error, cls, files.component, files.folder) from error
            refuse_changed(self._job.files)
            if isinstance(loaded, torch.nn.Module):
                check_at_blocks(loaded)
                if any(_hides_numbers(output) for output in self._job.stage.outputs):
                    finite.watch(component, loaded)
            elif is_tokenizer(cls):
                check_vocabulary(loaded, files.component, files.folder, self._embeddings(declared))
            self._loaded[component] = loaded
        return self._loaded[component]

    @property
    def stream(self) -> Stream:
        """The stream of this worker's components; inactive if none is streamed."""
        return self._loader.stream

    def config(self, component: str) -> Mapping[str, Any]:
        config = self._place(component).config()
        refuse_changed(self._job.files)
        return config

    def buffers(self, component: str) -> Mapping[str, torch.Tensor]:
        buffers = read_buffers(self._place(component).open())
        refuse_changed(self._job.files)
        return buffers

    def dtype_of(self, component: str) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self._job.dtypes.get(component, self._job.dtype))
        return dtype

    def _embeddings(self, tokenizer: Component) -> int | None:
        """The number of embeddings of a tokenizer's encoder, if the encoder is a component of the stage."""
        encoder = encoder_of(tokenizer, {one.name: one for one in self._components})
        if encoder is None or not self._place(encoder.name).has_config:
            return None
        return vocabulary_size(self._place(encoder.name).config())

    def _place(self, component: str) -> ComponentPlace:
        return self._job.components[self._component(component).name]

    @property
    def _components(self) -> tuple[Component, ...]:
        components = self._job.stage.components
        assert not isinstance(components, str), "the job has the stage for its model"  # noqa: S101
        return components

    def _component(self, name: str) -> Component:
        for component in self._components:
            if component.name == name:
                return component
        raise LookupError(f"{self._job.stage.name} declares no component '{name}'")
