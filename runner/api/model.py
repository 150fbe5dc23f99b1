"""What is known of a model before any of its weights are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class UnsupportedModelError(Exception):
    """A stage cannot use this model; the message says why, and what would work. The run is refused."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without its weights.

    It is the argument of functions that a plugin names: ``Stage.components`` and ``Stage.params`` where they
    depend on the model, and ``Template.recommend``.
    """

    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``config.json`` of each component that has one, by component.

    Components from elsewhere (``[model.components]``) are among them, also if the index does not list them;
    of a tokenizer, scheduler or processor among these, it is the config that its library saves.
    """
    card: Mapping[str, Any] = field(default_factory=dict)
    """The YAML header of its ``README.md``; empty if that is not on this machine."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """``model_index.json``; empty if the model has none."""
    pipeline: str = ""
    """The pipeline's class: the manifest's ``[model] pipeline``, else ``_class_name`` of the index."""
