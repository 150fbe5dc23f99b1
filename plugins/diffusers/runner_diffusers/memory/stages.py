"""Measures the stages: runs their own code, with fake models, on an item's parameters. Needs torch.

It runs in a child process of the plan, where no weights are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from runner.api import Activations, Bundled
from runner_diffusers import decode as decode_stage
from runner_diffusers import denoise as denoise_stage
from runner_diffusers import encode as encode_stage
from runner_diffusers.media.writing import most_bytes
from runner_diffusers.memory.auxiliary import part
from runner_diffusers.memory.fakes import CPU, Fakes, tensors_matching
from runner_diffusers.pipelines import components
from runner_diffusers.pipelines.division import methods_called
from runner_diffusers.pipelines.entries import Entry
from runner_diffusers.pipelines.params import PipelineParams
from runner_diffusers.pipelines.roles import Role, role_of
from runner_diffusers.replay.parts import class_of
from runner_diffusers.replay.shells import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.api import Component, ModelFacts, Saved, Sizes
    from runner_diffusers.memory.counting import Count


@dataclass
class MeasuredItem:
    """An item without a run around it."""

    params: Any
    inputs: Mapping[str, Any] = field(default_factory=dict)
    id: str = "measured"
    saved: Saved | None = None
    _kept: Any = None

    def step(self, step: int, steps: int, state: Any = None) -> None:
        """Keep a copy of the state, as a worker does between checkpoints."""
        del step, steps
        if isinstance(state, Bundled):
            self._kept = {name: tensor.clone() for name, tensor in state.tensors.items()}

    def warn(self, kind: str, message: str, **details: Any) -> None:
        """Warnings are for those who run it."""

    def note(self, message: str) -> None:
        """Notes are for those who run it."""

    def check_finite(self, name: str, values: Any) -> None:
        """Zeros are finite."""


class FakeContext:
    """What a stage's code loads: fake models, and real tokenizers, schedulers and processors."""

    device = CPU

    def __init__(self, sizes: Sizes, fakes: Fakes, stage: str) -> None:
        assert sizes.model is not None, "the engine gives the facts of the model"  # noqa: S101
        self.model: ModelFacts = sizes.model
        self._sizes = sizes
        self._fakes = fakes
        listed: tuple[Component, ...] = getattr(components, stage)(self.model)
        self._components = {one.name: one for one in listed}
        self._entries = components.component_entries(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """That of the first component with weights."""
        loaded = (one.name for one in self._components.values() if not one.config_only)
        return self.dtype_of(next((name for name in loaded if self._entry(name).has_weights), ""))

    def dtype_of(self, component: str) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self._sizes.dtypes.get(component, self._sizes.dtype))
        return dtype

    def config(self, component: str) -> Mapping[str, Any]:
        return self._sizes.configs.get(component) or self.model.configs.get(component, {})

    def buffers(self, component: str) -> Mapping[str, torch.Tensor]:
        """Ones, of the shapes that the tensors have."""
        declared = self._components[component]
        made = shell(class_of(declared.cls), self.config(component), {}, self.dtype_of(component), CPU)
        names = {id(tensor): name for name, tensor in [*made.named_parameters(), *made.named_buffers()]}
        found = tensors_matching(made, declared.buffers)
        return {names[id(tensor)]: torch.ones(tensor.shape, dtype=tensor.dtype) for _, _, tensor in found}

    def load(self, component: str) -> Any:
        cls, entry = class_of(self._components[component].cls), self._entry(component)
        if not entry.has_weights:
            return part(cls, self.config(component), self._folder(component))
        pipeline = components.pipeline_class(self.model)
        return self._fakes.model(
            component,
            cls,
            self.config(component),
            self.dtype_of(component),
            read=components.tensors_read(pipeline, component, entry),
            methods=methods_called(pipeline).get(component, frozenset()),
        )

    def _entry(self, component: str) -> Entry:
        found = self._entries.get(component)
        return found if found is not None else Entry("", has_weights=False)

    def _folder(self, component: str) -> Any:
        if self._sizes.folder is None:
            return None
        return self._sizes.folder / self._components[component].path


_fakes: dict[Any, Fakes] = {}
"""By what they depend on: several stages and sizes are measured in one process."""


def encode(params: Any, sizes: Sizes) -> Activations:
    """Activations of ``diffusers.encode``."""
    return Stages(sizes).encode(params)[0]


def denoise(params: Any, sizes: Sizes) -> Activations:
    """Activations of ``diffusers.denoise``, and before it the shapes of what is encoded."""
    stages = Stages(sizes)
    encoded = stages.encode(_upstream(sizes, "encoded"))[1]
    return stages.denoise(params, encoded)[0]


def decode(params: Any, sizes: Sizes) -> Activations:
    """Activations of ``diffusers.decode``, and before it the shapes of what is denoised."""
    stages = Stages(sizes)
    encoded = stages.encode(_upstream(sizes, "encoded"))[1]
    denoised = stages.denoise(_upstream(sizes, "denoised"), encoded)[1]
    return stages.decode(params, encoded, denoised)


def _upstream(sizes: Sizes, name: str) -> PipelineParams:
    """The parameters of the stage that makes an input.

    Raises:
        ValueError: it is another plugin's stage.

    """
    found = sizes.upstream.get(name)
    if not isinstance(found, PipelineParams):
        raise ValueError(f"'{name}' comes from another plugin's stage, and its shapes are not known")  # noqa: TRY004
    return found


class Stages:
    """The stages of one pipeline."""

    def __init__(self, sizes: Sizes) -> None:
        key = (sizes.device, repr(sizes.model), repr(sorted(sizes.dtypes.items())), sizes.dtype)
        self._sizes = sizes
        self._fakes = _fakes.setdefault(key, Fakes(sizes))

    def encode(self, params: Any) -> tuple[Activations, Bundled]:
        count, made = self._run("encode", encode_stage.start, MeasuredItem(params))
        return self._activations(count, Role.ENCODE, _bytes_of(made["encoded"])), made["encoded"]

    def denoise(self, params: Any, encoded: Bundled) -> tuple[Activations, Bundled]:
        item = MeasuredItem(params, {"encoded": encoded})
        count, made = self._run("denoise", denoise_stage.start, item)
        return self._activations(count, Role.DENOISE, _bytes_of(made["denoised"])), made["denoised"]

    def decode(self, params: Any, encoded: Bundled, denoised: Bundled) -> Activations:
        item = MeasuredItem(params, {"encoded": encoded, "denoised": denoised})
        count, result = self._run("decode", decode_stage.decoder, item)
        # what stays in the heap while a decoder runs, such as finished tiles, leaves gaps of its size
        peak = count.peak + (count.in_heap_peak if self._sizes.device == "cpu" else 0)
        return Activations(peak, output_bytes=most_bytes(result, params.format), operations=count.operations)

    def _run(self, stage: str, start: Callable[[Any], Any], item: MeasuredItem) -> tuple[Count, Any]:
        with torch.inference_mode():
            compute = start(FakeContext(self._sizes, self._fakes, stage))
            inputs = [t for bundle in item.inputs.values() for t in bundle.tensors.values()]
            with self._fakes.counting(inputs) as count:
                made = compute(item)
        return count, made

    def _activations(self, count: Count, role: Role, output: int) -> Activations:
        passes = {name: calls for name, calls in self._fakes.passes.items() if self._is_of(name, role)}
        weights = {name: self._fakes.parameters(name) for name in passes}
        total = sum(weights.values())
        # passes over all weights of the stage: two transformers that take turns share them
        over_all = sum(calls * weights[name] for name, calls in passes.items())
        return Activations(
            count.peak,
            suspended=count.waiting,
            tokens=int(count.operations / 2 / over_all) if over_all else 0,
            passes=-(-over_all // total) if total else 0,
            output_bytes=output,
            operations=count.operations,
            small=count.small_peak,
        )

    def _is_of(self, name: str, role: Role) -> bool:
        assert self._sizes.model is not None  # noqa: S101 - the engine gives it
        entry = components.component_entries(self._sizes.model).get(name)
        return entry is not None and role_of(self._sizes.model.pipeline, name, entry) is role


def _bytes_of(bundle: Bundled) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in bundle.tensors.values())
