"""Facts of a model from its index and configs, for stages whose components and parameters depend on it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runner.api import ModelFacts
from runner.errors import ModelError
from runner.manifest.sources import is_hub_id
from runner.model.files import INDEX, read_index, read_table
from runner.model.remote import configs_of, model_index
from runner.model.selection import CONFIG
from runner.model.sources import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runner.manifest.schema import ModelSource
    from runner.plugins import Plugins


def facts_of(source: ModelSource, base: Path, plugins: Plugins) -> ModelFacts:
    """The facts of a model; of one that is not on this machine, from the hub. No weights are read.

    ``base`` is the base of relative folders.

    Raises:
        ModelError: the model or its index is missing or damaged, or the hub does not answer.
        PluginError: the plugin that packages it is not installed.

    """
    model = find(source, base, plugins, ())
    if model is not None and (not is_hub_id(source.source) or (model.folder / INDEX).is_file()):
        index = read_index(model.folder)
        configs: Mapping[str, Mapping[str, Any]] = dict(_local_configs(model.folder, component_names(index)))
    else:
        index = model_index(source)
        configs = configs_of(source, component_names(index))
    named = index.get("_class_name")
    pipeline = source.pipeline or (named if isinstance(named, str) else "")
    return ModelFacts(configs, index=index, pipeline=pipeline)


def component_names(index: Mapping[str, Any]) -> list[str]:
    """The components that a ``model_index.json`` lists: entries of a library and a class."""
    entries = index.items()
    return [n for n, entry in entries if isinstance(entry, list) and len(entry) == 2 and all(entry)]


def _local_configs(folder: Path, names: Iterable[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    for name in names:
        with suppress(
            ModelError
        ):  # a component without one, or a damaged file, which is reported when it is opened
            if (folder / name / CONFIG).is_file():
                yield name, read_table(folder / name / CONFIG)
