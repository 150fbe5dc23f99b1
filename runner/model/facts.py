"""Facts of a model from its index and configs, for stages whose components and parameters depend on it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runner.api import Component, ModelFacts
from runner.errors import ModelError
from runner.manifest.sources import is_hub_id
from runner.model.files import read_index, read_table
from runner.model.hub.headers import model_index, tables_of
from runner.model.parts import config_name
from runner.model.selection import CONFIG, INDEX
from runner.model.sources import find

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.manifest.schema import ModelSource, PartSource
    from runner.model.sources import Model
    from runner.plugins import Plugins


def facts_of(
    source: ModelSource, base: Path, plugins: Plugins, parts: Mapping[str, Mapping[str, Any]]
) -> ModelFacts:
    """The facts of a model; of one that is not on this machine, from the hub. No weights are read.

    ``base`` is the base of relative folders; ``parts`` are the configs of components from elsewhere.

    Raises:
        ModelError: the model or its index is missing or damaged, or the hub does not answer.
        PluginError: the plugin that packages it is not installed.

    """
    model = find(source, base, plugins, ())
    if model is not None and (not is_hub_id(source.source) or (model.folder / INDEX).is_file()):
        index = read_index(model.folder)
        own = [Component(name, "") for name in component_names(index) if name not in parts]
        configs = {c.name: table for c in own if (table := _local_table(model, c, CONFIG)) is not None}
    else:
        index = model_index(source)
        own = [Component(name, "") for name in component_names(index) if name not in parts]
        configs = dict(tables_of(source, own))
    named = index.get("_class_name")
    pipeline = source.pipeline or (named if isinstance(named, str) else "")
    return ModelFacts({**configs, **parts}, index=index, pipeline=pipeline)


def part_config(part: PartSource, base: Path, plugins: Plugins) -> Mapping[str, Any]:
    """The config of a component from elsewhere, which names its class; empty if it has none.

    Of a tokenizer, a scheduler or a processor, it is the file that its library saves.

    Raises:
        ModelError: it is missing or damaged, or the hub does not answer.
        PluginError: the plugin that packages it is not installed.

    """
    name, component = config_name(part), Component(part.component, "")
    model = find(part, base, plugins, ())
    table = _local_table(model, component, name) if model else None
    if table is None and is_hub_id(part.source):
        table = tables_of(part, [component], name).get(component.name)
    return table or {}


def component_names(index: Mapping[str, Any]) -> list[str]:
    """The components that a ``model_index.json`` lists: entries of a library and a class."""
    entries = index.items()
    return [n for n, entry in entries if isinstance(entry, list) and len(entry) == 2 and all(entry)]


def _local_table(model: Model, component: Component, name: str) -> Mapping[str, Any] | None:
    """A JSON file of a component, if it has one; a damaged one is reported when the component is opened."""
    place = model.place(component)
    path = place.folder / place.component.path / name
    with suppress(ModelError):
        if path.is_file():
            return read_table(path)
    return None
