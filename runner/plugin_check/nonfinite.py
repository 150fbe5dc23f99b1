"""Feeds NaN and infinity to a stage, to see whether it makes an output of them instead of failing."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.plugin_check.record import Content, MadeItem, Recording


def find_hidden(recording: Recording, made: MadeItem) -> tuple[str, str] | None:
    """What was not finite, in words, and the output made of it; None if the item fails, as it should.

    An unchanged output does not depend on what was fed.
    """
    for cause, content in _outputs(recording, made):
        changed = [name for name in content if content[name] != made.content.get(name)]
        if changed:
            return cause, changed[0]
    return None


def _outputs(recording: Recording, made: MadeItem) -> Iterator[tuple[str, Content]]:
    if any(_is_floating(value) for value in made.inputs.values()):
        filled = {name: _filled(value, math.nan) for name, value in made.inputs.items()}
        content = _content(recording, made, filled)
        if content is not None:
            yield "its inputs are NaN", content
    for value in (math.nan, math.inf) if recording.modules else ():
        with ExitStack() as hooks:
            for module in recording.modules:
                for part in (module, *module.children()):
                    hooks.enter_context(_returns(part, value))
            content = _content(recording, made, recording.copied(made.inputs))
        if content is not None:
            yield f"its components return {'NaN' if math.isnan(value) else 'infinite numbers'}", content


def _content(recording: Recording, made: MadeItem, inputs: dict[str, Any]) -> Content | None:
    """The item's outputs with these inputs; None if it fails."""
    try:
        return recording.content(made, recording.call(made, inputs))
    except Exception:  # the stage may raise anything
        return None


def _returns(module: torch.nn.Module, value: float) -> torch.utils.hooks.RemovableHandle:
    """Make the module return ``value`` for all its floating-point numbers until the handle is closed."""

    def fill(_module: torch.nn.Module, _args: object, returned: Any) -> Any:
        return pytree.tree_map(lambda leaf: _filled(leaf, value), returned)

    return module.register_forward_hook(fill)


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _filled(leaf: Any, value: float) -> Any:
    return torch.full_like(leaf, value) if _is_floating(leaf) else leaf
