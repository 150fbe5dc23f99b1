"""The argument and the results of ``Stage.check``, which is called before a run starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Facts:
    """What a stage's ``check`` receives besides an item's parameters; nothing is loaded for it.

    Parameters are instances of ``Stage.params``. In fields whose text is made by an earlier stage, and so not
    known yet, they have ``"text"``.
    """

    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``config.json``, or else ``scheduler_config.json`` or ``tokenizer_config.json``, by component."""
    upstream: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of the stage that each input comes from, for the same item, by input."""
    upstream_configs: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """``configs`` of the stage that each input comes from, by input; absent for inputs that are not wired."""


@dataclass(frozen=True)
class Problem:
    """A result of a stage's ``check``: a sentence that says what is wrong and what to do.

    It is shown where ``parameter`` is set, which may belong to an earlier stage, or with ``component`` where
    the model's source is set. The run is refused, unless the problem is a ``warning``.
    """

    message: str
    parameter: str = ""
    component: str = ""
    warning: bool = False
