"""Numbers that are not finite, put where a stage gets its numbers from: does it make an output of them?"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.plugin_check.record import Content, MadeItem, Recording


def hidden(recording: Recording, made: MadeItem) -> tuple[str, str] | None:
    """What was put in and which output then came of it, in words; None if the item fails, as it should.

    An output that is the same as before was not made of what was put in.
    """
    for what, content in _outputs(recording, made):
        changed = [name for name in content if content[name] != made.content.get(name)]
        if changed:
            return what, changed[0]
    return None


def _outputs(recording: Recording, made: MadeItem) -> Iterator[tuple[str, Content]]:
    if any(_is_floating(value) for value in made.inputs.values()):
        filled = {name: _filled(value, math.nan) for name, value in made.inputs.items()}
        content = _made(recording, made, filled)
        if content is not None:
            yield "its inputs are NaN", content
    for value in (math.nan, math.inf) if recording.modules else ():
        with ExitStack() as hooks:
            for module in recording.modules:
                for part in (module, *module.children()):
                    hooks.enter_context(_returns(part, value))
            content = _made(recording, made, recording.copied(made.inputs))
        if content is not None:
            yield f"its components return {'NaN' if math.isnan(value) else 'infinite numbers'}", content


def _made(recording: Recording, made: MadeItem, inputs: dict[str, Any]) -> Content | None:
    """What an item leaves that is made of these inputs; None if it fails."""
    try:
        return recording.content(made.id, recording.call(made, inputs))
    except Exception:  # whatever tells
        return None


def _returns(module: torch.nn.Module, value: float) -> torch.utils.hooks.RemovableHandle:
    """Have the module return this in place of all its numbers, until the handle is left."""

    def fill(_module: torch.nn.Module, _args: object, returned: Any) -> Any:
        return pytree.tree_map(lambda leaf: _filled(leaf, value), returned)

    return module.register_forward_hook(fill)


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _filled(leaf: Any, value: float) -> Any:
    return torch.full_like(leaf, value) if _is_floating(leaf) else leaf
