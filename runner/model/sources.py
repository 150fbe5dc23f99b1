"""Finds and fetches models: in a folder, in a plugin's package, or on the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.manifest.schema import LoraSource, ModelSource, PartSource
from runner.manifest.sources import PLUGIN, is_hub_id, mistaken_hub_id, no_folder, path_of
from runner.model.files import ComponentFiles, ComponentPlace
from runner.model.hub import snapshots
from runner.model.hub.needed import check_variant
from runner.model.parts import file_of, located_on_disk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from runner.api import Component
    from runner.manifest.loras import Lora
    from runner.manifest.schema import Source
    from runner.model.checks.adapters import Recipients
    from runner.model.layouts import Layout
    from runner.model.preparation import Preparation
    from runner.plugins import Plugins


@dataclass(frozen=True)
class Model:
    """A model on this machine, or the one that a part is from, or the file of an adapter."""

    source: Source
    folder: Path

    @property
    def variant(self) -> str | None:
        return self.source.variant

    @property
    def commit(self) -> str | None:
        """The commit of a hub model, which names its folder in the cache; None for others."""
        return self.folder.name if is_hub_id(self.source.source) else None

    def component(self, component: Component) -> ComponentFiles:
        """The component's files, checked.

        Raises:
            ModelError: they are missing, damaged or pickled.

        """
        files = snapshots.open_from(self.source, self.folder, self._located(component))
        return replace(files, declared=component.path)

    def place(self, component: Component) -> ComponentPlace:
        """Where the component's files are."""
        return ComponentPlace(self._located(component), self.folder, self.variant)

    def _located(self, component: Component) -> Component:
        locate = snapshots.located_in if self.commit else located_on_disk
        (found,) = locate(self.source, self.folder, [component])
        return found

    def record(self) -> dict[str, Any]:
        """A source that identifies the same files from any folder and at any time.

        A hub id with its ``commit``, a packaged model, or the absolute path of a folder.
        """
        pipeline = self.source.pipeline if isinstance(self.source, ModelSource) else None
        inner = self.source.subfolder if isinstance(self.source, PartSource) else None
        file = file_of(self.source)
        given = {"variant": self.source.variant, "pipeline": pipeline, "subfolder": inner, "file": file}
        options = {name: value for name, value in given.items() if value}
        if isinstance(self.source, LoraSource):
            options = {"file": self.source.file or PurePath(self.source.source).name}
        if self.commit:
            return {"source": self.source.source, "commit": self.commit, **options}
        name = self.source.source
        return {"source": name if name.startswith(PLUGIN) else str(self.folder), **options}


@dataclass(frozen=True)
class ComposedModel:
    """A model with the components from elsewhere that a stage loads, by name."""

    own: Model
    parts: Mapping[str, Model]
    prepared: Mapping[str, Preparation] = field(default_factory=dict)
    """The components that are loaded from the cache, quantised or converted."""
    loras: Mapping[Lora, Model] = field(default_factory=dict)
    """The files of the adapters that change the stage."""
    recipients: Recipients | None = None
    """What the adapters may change, if there are any."""

    def place(self, component: Component, layout: Layout | None = None) -> ComponentPlace:
        """Where a component's files are; ``layout`` is that of a single file with its weights."""
        if (written := self.prepared.get(component.name)) is not None:
            return ComponentPlace(written.prepared, written.target)
        part = self.parts.get(component.name, self.own)
        if file := file_of(part.source):
            return replace(self.own.place(component), weights=part.folder / file, layout=layout)
        return part.place(component)

    def record(self) -> dict[str, Any]:
        """As :meth:`Model.record`, with a record of each part in ``components``, of adapters in ``loras``."""
        parts = {name: part.record() for name, part in self.parts.items()}
        loras = {lora.name: model.record() for lora, model in self.loras.items()}
        more = {"loras": loras} if loras else {}
        return {**self.own.record(), **({"components": parts} if parts else {}), **more}

    def lora_files(self) -> dict[int, Path]:
        """The files of the adapters, by their places in the manifest."""
        return {
            lora.index: model.folder / (lora.source.file or PurePath(lora.source.source).name)
            for lora, model in self.loras.items()
        }


def find(source: Source, base: Path, plugins: Plugins, components: Sequence[Component]) -> Model | None:
    """The model, if it is on this machine; None for a hub model that is not completely in the cache.

    ``base`` is the base of relative folders.

    Raises:
        ModelError: the folder or the variant is missing, or a hub id was probably meant as a folder.
        PluginError: the plugin that packages it is not installed.

    """
    if is_hub_id(source.source):
        folder = snapshots.cached(source, components)
        is_file = isinstance(source, LoraSource)
        if folder is None and not is_file and (message := mistaken_hub_id(source, base)):
            raise ModelError(message)
        return Model(source, folder) if folder else None
    if isinstance(source, LoraSource):
        path = path_of(source.source, base)
        if not os.path.isfile(path):  # noqa: PTH113
            raise ModelError(f"there is no file {path} (the [[lora]] has '{source.source}')")
        return Model(source, path.parent)
    if source.source.startswith(PLUGIN):
        name, _, inner = source.source.removeprefix(PLUGIN).partition("/")
        plugin = plugins.get(name)
        folder = plugin.folder / inner
        missing = f"the plugin '{name}' (from {plugin.distribution}) packages no model '{inner}'"
    else:
        folder = path_of(source.source, base)
        missing = no_folder(folder, source.source)
    if not os.path.isdir(folder):  # noqa: PTH112 - never raises, whatever the name
        raise ModelError(missing)
    if source.variant is not None:
        check_variant(source, [path.name for path in folder.glob("*/*.safetensors")])
    return Model(source, folder)


def fetch(source: Source, components: Sequence[Component], listener: snapshots.Listener) -> Model:
    """Download the files of a hub model that the components need, and replace damaged ones.

    Raises:
        ModelError: it is missing, gated or cannot be fetched completely.
        StorageError: the disk has no room.

    """
    return Model(source, snapshots.download(source, components, listener))
