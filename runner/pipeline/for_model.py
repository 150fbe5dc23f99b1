"""Stages whose components or parameters depend on the model: asks the plugin's functions about one model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from runner.api import UnsupportedModelError
from runner.declarations import DeclarationError, check_components
from runner.errors import ModelError, PluginError, in_words
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import ModelFacts, Stage


def depends_on_model(stage: Stage) -> bool:
    """Whether the stage's components or parameters are known only with a model."""
    return isinstance(stage.components, str) or (bool(stage.params) and _params(stage)[0] is None)


def params_model(stage: Stage, facts: ModelFacts | None) -> type[BaseModel] | None:
    """The pydantic model of a stage's parameters; None if it has none, or if it depends on an unknown model.

    Raises:
        PluginError: it cannot be imported, or is neither a model nor a function that returns one.
        ModelError: the stage cannot use this model.

    """
    if not stage.params:
        return None
    model, function = _params(stage)
    if model is not None or facts is None:
        return model
    returned = _call(function, stage, stage.params, facts)
    if not _is_model(returned):
        raise PluginError(f"{stage.params} returned {returned!r}, and not a pydantic model")
    found: type[BaseModel] = returned
    return found


def for_model(stage: Stage, facts: ModelFacts) -> Stage:
    """The stage with the components that it loads of this model.

    Raises:
        PluginError: the plugin's function fails, or returns no components.
        ModelError: the stage cannot use this model.

    """
    if not isinstance(stage.components, str):
        return stage
    returned = _call(load_object(stage.components), stage, stage.components, facts)
    try:
        components = check_components(f"{stage.components} for {facts.pipeline}", returned)
    except DeclarationError as error:
        raise PluginError(str(error)) from None
    return replace(stage, components=components)


def _params(stage: Stage) -> tuple[type[BaseModel] | None, Callable[[ModelFacts], Any]]:
    """The model that ``Stage.params`` names, or else the function that it names.

    Raises:
        PluginError: it names neither.

    """
    found = load_object(stage.params)
    if _is_model(found):
        return found, lambda _facts: found
    if isinstance(found, type) or not callable(found):
        raise PluginError(f"'{stage.params}' is not a pydantic model")
    return None, found


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _call(function: Any, stage: Stage, name: str, facts: ModelFacts) -> Any:
    try:
        return function(facts)
    except UnsupportedModelError as error:
        plugin = stage.name.partition(".")[0]
        raise ModelError(f"the stages of '{plugin}' cannot use this model: {error}") from None
    except Exception as error:
        raise PluginError(f"{name} fails for a model of {facts.pipeline}: {in_words(error)}") from error
