"""One item's call of the unmodified pipeline, in one stage."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Protocol

import torch
from diffusers.guiders import BaseGuidance

from runner_diffusers.pipelines.division import ENCODES
from runner_diffusers.pipelines.roles import Role
from runner_diffusers.replay.encoding import ReplayError
from runner_diffusers.replay.schedulers import is_scheduler, own_scheduler, report_calls
from runner_diffusers.replay.views import Arguments, view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner_diffusers.replay.loop import Loop

NOT_WRAPPED = ("check_inputs", "progress_bar", "to")
OF_EVERY_PIPELINE = ("DiffusionPipeline", "StableDiffusionMixin")


class StageEnd(BaseException):
    """The first call of a component of a later stage: this one has done its part.

    No ``Exception``, so that a pipeline does not handle it.
    """


class Encoders(Protocol):
    """Calls encoders and records them, or plays them back."""

    def method(self, name: str, call: Arguments, *, encodes: bool) -> Any: ...
    def component(self, name: str, method: str, call: Arguments, *, encoder: bool) -> Any: ...


@dataclass(frozen=True)
class Parts:
    """What pipelines of a stage are made from, for all items."""

    cls: Any
    """The pipeline's class."""
    components: Mapping[str, Any]
    """Modules, shells of modules, and objects without weights; None for absent ones."""
    shells: frozenset[str]
    """Components without weights here."""
    roles: Mapping[str, Role]
    init_values: Mapping[str, Any]
    encoding_methods: frozenset[str]
    """Methods of the pipeline that run an encoder."""
    methods: Mapping[str, frozenset[str]]
    """The methods of each component that the pipeline calls."""
    device: torch.device
    dtypes: Mapping[str, torch.dtype]
    """The dtype of each component with weights, in the stage that loads it."""

    @property
    def denoiser_dtype(self) -> torch.dtype:
        """The dtype that prompts and latents have in the loop."""
        return next(self.dtypes[name] for name, role in self.roles.items() if role is Role.DENOISE)


@dataclass
class PipelineCall:
    """The call of a pipeline for one item: its own views, schedulers and guiders, which report to the stage.

    ``decode`` is called for what decodes, ``loop`` runs the denoiser; where a stage has none, the call ends.
    """

    parts: Parts
    encoders: Encoders
    guiders: Mapping[str, Any]
    """The item's own, by component: see :func:`own_guiders`."""
    loop: Loop | None = None
    decode: Callable[[str, Arguments], Any] | None = None
    pipeline: Any = None
    """The pipeline, once it runs."""

    def run(self, arguments: Mapping[str, Any], generator: torch.Generator) -> Any:
        """Call the pipeline; returns what it returns, or None if it ended at a later stage's component.

        Raises:
            ReplayError: it does not behave as in the stage before.

        """
        self.pipeline = self._pipeline()
        try:
            return self.pipeline(**arguments, generator=generator)
        except StageEnd:
            return None

    def _pipeline(self) -> Any:
        parts = self.parts
        own = {name: self._own(name, component) for name, component in parts.components.items()}
        own |= dict(self.guiders)
        pipeline = parts.cls(**own, **parts.init_values)
        for part in vars(pipeline).values():
            if is_scheduler(part):  # some pipelines make one of their own
                report_calls(part, self._on_scheduler)
        pipeline.set_progress_bar_config(disable=True)
        for name, function in _methods(parts.cls):
            wrapped = partial(self._on_method, name, function, pipeline)
            object.__setattr__(pipeline, name, wrapped)
        return pipeline

    def _own(self, name: str, component: Any) -> Any:
        """The item's own object for a component."""
        if isinstance(component, torch.nn.Module):
            methods = self.parts.methods.get(name, frozenset())
            return view(component, name, methods, self.parts.device, self._on_component)
        if is_scheduler(component):
            return own_scheduler(component, self._on_scheduler)
        return component

    def _on_method(
        self, name: str, function: Callable[..., Any], pipeline: Any, *args: Any, **kwargs: Any
    ) -> Any:
        call = Arguments(pipeline, function, args, kwargs)
        return self.encoders.method(name, call, encodes=name in self.parts.encoding_methods)

    def _on_component(self, name: str, method: str, call: Arguments) -> Any:
        role = self.parts.roles[name]
        if role is Role.DENOISE:
            if self.loop is None:
                raise StageEnd
            return self.loop.denoise(name, call)
        if role is Role.DECODE and method not in ENCODES:
            if self.decode is None:
                raise StageEnd
            return self.decode(name, call)
        return self.encoders.component(name, method, self._cast(name, call), encoder=role is Role.ENCODE)

    def _on_scheduler(self, scheduler: Any, method: str, call: Callable[[], Any]) -> Any:
        if method == "set_timesteps":
            if self.loop is not None:
                self.loop.begin(scheduler)
            return call()
        if self.loop is None:
            raise ReplayError("the scheduler steps before the denoiser is called")
        return self.loop.step(scheduler, call)

    def _cast(self, name: str, call: Arguments) -> Arguments:
        return cast_arguments(call, self.parts.dtypes.get(name), {*self.parts.dtypes.values()})


def cast_arguments(call: Arguments, own: torch.dtype | None, dtypes: set[torch.dtype]) -> Arguments:
    """The call with tensors of other stages' dtypes cast to the component's own, if they differ."""
    if own is None or len(dtypes) == 1:
        return call

    def cast(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype in dtypes:
            return value.to(own)
        return value

    call.args = tuple(map(cast, call.args))
    call.kwargs = {name: cast(value) for name, value in call.kwargs.items()}
    return call


def own_guiders(parts: Parts) -> dict[str, Any]:
    """Copies of the guiders, which keep state between steps, by component."""
    guiders = {name: part for name, part in parts.components.items() if isinstance(part, BaseGuidance)}
    return {name: copy.deepcopy(guider) for name, guider in guiders.items()}


def _methods(cls: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The methods of a pipeline's own, by name; not those of diffusers' base classes."""
    found: dict[str, Callable[..., Any]] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("diffusers.pipelines.") and base.__name__ not in OF_EVERY_PIPELINE:
            for name, value in vars(base).items():
                if isfunction(value) and name not in NOT_WRAPPED and not name.startswith("__"):
                    found.setdefault(name, value)
    return iter(found.items())
