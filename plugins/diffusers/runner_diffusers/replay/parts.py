"""What a stage's pipelines are made from: loaded components, shells of the others, the scheduler's class."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import diffusers

from runner_diffusers.pipelines.components import component_entries, init_values, pipeline_class
from runner_diffusers.pipelines.division import encoding_methods, methods_called
from runner_diffusers.pipelines.roles import Role, role_of
from runner_diffusers.replay.call import Parts
from runner_diffusers.replay.shells import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from runner.api import Component, Context, ModelFacts


def parts_of(ctx: Context, components: Callable[[ModelFacts], Iterable[Component]]) -> Parts:
    """Load a stage's ``components`` and make shells of the others."""
    model = ctx.model
    assert model is not None, "the stage's components depend on the model"  # noqa: S101
    pipeline = pipeline_class(model)
    entries = component_entries(model)
    roles = {
        name: role_of(pipeline.name, name, given) for name, given in entries.items() if given is not None
    }
    made: dict[str, Any] = dict.fromkeys(entries)
    listed = tuple(components(model))
    for component in listed:
        made[component.name] = _shell(ctx, component) if component.config_only else ctx.load(component.name)
    weighty = [name for name, role in roles.items() if role is not Role.AUXILIARY]
    return Parts(
        cls=class_of(f"{pipeline.module}:{pipeline.name}"),
        components=made,
        shells=frozenset(component.name for component in listed if component.config_only),
        roles=roles,
        init_values=init_values(model),
        encoding_methods=encoding_methods(pipeline),
        methods=methods_called(pipeline),
        device=ctx.device,
        dtypes={name: ctx.dtype_of(name) for name in weighty},
    )


def scheduler_of(parts: Parts, chosen: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The components with another scheduler: ``class`` names one of diffusers', the rest are its options.

    Raises:
        ValueError: diffusers has no such scheduler.

    """
    if not chosen:
        return parts.components
    options = dict(chosen)
    own = parts.components["scheduler"]
    name = str(options.pop("class", type(own).__name__))
    cls: Any = getattr(diffusers, name, None)
    if diffusers.SchedulerMixin not in getattr(cls, "__mro__", ()):
        raise ValueError(f"diffusers has no scheduler {name!r}")
    return {**parts.components, "scheduler": cls.from_config(own.config, **options)}


def _shell(ctx: Context, component: Component) -> torch.nn.Module:
    buffers = ctx.buffers(component.name) if component.buffers else {}
    cls = class_of(component.cls)
    return shell(cls, ctx.config(component.name), buffers, ctx.dtype_of(component.name), ctx.device)


def class_of(name: str) -> Any:
    """A class of diffusers or transformers, by its dotted name."""
    module, _, cls = name.partition(":")
    assert module.partition(".")[0] in ("diffusers", "transformers"), name  # noqa: S101 - entries allow no others
    return getattr(importlib.import_module(module), cls)
