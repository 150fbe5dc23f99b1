"""Checks that a component's files hold exactly the weights of its class, in their shapes.

Libraries initialise missing weights at random and ignore unknown ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.model.checks.classes import architectures, is_whole_of
from runner.model.checks.formats import PLAIN, format_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.api import Component

NAMED = 3  # weights in a message
OTHER = (
    "the files are of another model, of another size of it, or were saved by a version of the library that "
    "names weights differently"
)


@dataclass(frozen=True)
class Disagreement:
    """How the weights in the files differ from those of the class, by name."""

    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    mismatched: Sequence[str] = ()
    """Names with both shapes."""
    not_numbers: Sequence[str] = ()
    """Stored as integers, or as exponents, where the class has floating-point numbers, or the other way."""

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Disagreement:
        """From the loading report of diffusers or transformers."""
        return cls(
            sorted(map(str, report.get("missing_keys", ()))),
            sorted(map(str, report.get("unexpected_keys", ()))),
            [
                f"{name} ({_shown(stored)} in the files, {_shown(taken)} in the class)"
                for name, stored, taken in sorted(report.get("mismatched_keys", ()))
            ],
        )


def check_agreement(cls: Any, component: Component, folder: Path, found: Disagreement) -> None:
    """Refuse missing weights, unexpected weights, and weights of other shapes.

    Raises:
        ModelError: there are some; the message names the first of each kind.

    """
    unexpected = found.unexpected
    if unexpected:
        unexpected = _outside_of_larger(cls, component, folder, unexpected)
    if message := disagreement(cls, replace(found, unexpected=unexpected)):
        raise ModelError(f"component '{component.name}': the files in {folder / component.path} {message}")


def disagreement(cls: Any, found: Disagreement) -> str:
    """What files lack and hold that is not of the class, and why; empty if they agree."""
    parts = [
        _part("lack {} of " + cls.__name__, found.missing),
        _part("hold {} that " + cls.__name__ + " does not take", found.unexpected),
        _part("hold {} of another shape", found.mismatched),
        _part("hold {} in a dtype that " + cls.__name__ + " cannot compute with", found.not_numbers),
    ]
    if not any(parts):
        return ""
    if not any(parts[:3]):
        return f"{parts[3]}: they were quantised by another tool; {PLAIN}"
    return f"{'; they '.join(filter(None, parts))}: {format_of(found.unexpected) or OTHER}"


def _part(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    count = "a weight" if len(names) == 1 else f"{len(names)} weights"
    more = ", ..." if len(names) > NAMED else ""
    return f"{what.format(count)} ({', '.join(names[:NAMED])}{more})"


def _outside_of_larger(cls: Any, component: Component, folder: Path, names: Iterable[str]) -> list[str]:
    """The weights among ``names`` that do not belong to a larger model that contains this class.

    A text encoder may be loaded from the files of a whole model. The larger class is one that the config
    names, from the same module of the library.
    """
    module = sys.modules[cls.__module__]
    names = list(names)
    for name in architectures(folder / component.path):
        larger = getattr(module, name, None)
        accepted = is_whole_of(name, cls.__name__) or name in component.accepts
        if (
            accepted
            and isinstance(larger, type)
            and issubclass(larger, torch.nn.Module)
            and larger is not cls
        ):
            config = larger.config_class.from_pretrained(folder / component.path)  # type: ignore[attr-defined]
            with torch.device("meta"):
                known = set(larger(config).state_dict())
            names = [weight for weight in names if weight not in known]
    return names


def _shown(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
