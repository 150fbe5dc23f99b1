"""Manifests that a plugin provides: templates for ``runner new``, and demos for ``runner demo``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Template:
    """A manifest that ``runner new`` starts from: the stages of a model, at full quality.

    ``path`` is that of a TOML file, relative to the plugin's package. ``pipelines`` are the ``_class_name``
    values in ``model_index.json`` of the models that it is for (``"FluxPipeline"``); ``"*"`` stands for those
    that no other template is for. ``model`` is the default model, by default that in the file. One that is
    ``only_by_name`` is not offered to users who name neither a model nor a template.

    The file is a valid manifest. ``runner new`` replaces its ``name``, ``[model]`` and ``[budget]``; where a
    stage does not fit, it lowers the parameters that have ``less_memory`` values, then the ``dtype``. In the
    comments before the first key, it fills in ``{manifest}``, ``{hardware}`` and ``{access}``, and leaves out
    lines whose placeholder is empty.

    ``recommend`` names a function of :class:`~runner.api.ModelFacts` that returns :class:`Recommended`
    parameters and prompts, which replace those of the file. It imports no torch.

    ``files`` are examples for parameters that are files, such as a picture to edit; their paths are relative
    to the package. Those whose names the new manifest has as values are copied into its folder.
    """

    name: str
    pipelines: tuple[str, ...]
    path: str
    model: str = ""
    recommend: str = ""
    only_by_name: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recommended:
    """Settings for a model that replace those of its template.

    ``parameters`` are those of ``[stage.with]``, by the stage's name in the template; None removes one. What
    the template has in ``[with]`` alone is changed there. ``shared`` are those of ``[with]`` itself.
    ``prompts`` are examples of what the model draws.
    """

    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    shared: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demo:
    """A manifest that ``runner demo`` writes into the current folder and runs.

    ``path`` is that of a TOML file, relative to the plugin's package; it is copied unchanged, with its name.
    It should need no download and no accelerator: its model is a packaged one (``plugin:NAME/FOLDER``).
    """

    name: str
    path: str
    summary: str = ""
