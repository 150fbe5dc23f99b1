"""Opens the files of a component in a model folder, and checks that they are complete."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.files.gguf import read_gguf
from runner.files.header import Header, HeaderError, UnreadFormatError, read_header
from runner.files.storage import LFS_POINTER, is_lfs_pointer, open_to_read
from runner.manifest.problems import did_you_mean
from runner.model.bitsandbytes import DESCRIPTION_LIMIT, is_bitsandbytes, is_description
from runner.model.layouts import in_layout
from runner.model.selection import CONFIG, GGUF, INDEX, WEIGHTS, path_of, select
from runner.model.shapes import ComponentShapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api import Component
    from runner.model.layouts import Layout

SINGLE = "single-file"
"""The name in keys of a single file with weights: its content alone counts."""
OTHER_CONFIGS = ("scheduler_config.json", "tokenizer_config.json")
TABLE_LIMIT = 16 << 20  # bytes of a JSON config or index
POINTER_LIMIT = 1024  # bytes; the longest pointer of git-lfs


@dataclass(frozen=True)
class ComponentFiles:
    """A component's files on disk: every shard exists and is as long as its header says."""

    component: Component
    folder: Path
    names: tuple[str, ...]
    """Paths relative to the model's folder."""
    variant: str | None = None
    """The variant of the weights; None for plain files."""
    index: str | None = None
    """The name of the index that lists the shards."""
    declared: str = ""
    """The folder of its declaration, by which keys name the files; empty if that is where they are."""
    configured: ComponentFiles | None = None
    """Of a single file of weights: the files with its config."""
    layout: Layout | None = None
    """Of a single file of weights: what its tensors become."""

    @property
    def keyed(self) -> list[tuple[str, Path]]:
        """The files as they are named in keys, which is the same wherever they are."""
        keyed = replace(self.component, folder=self.declared or self.component.folder)
        own = [(path_of(keyed, PurePosixPath(name).name), self.folder / name) for name in self.names]
        if self.configured is None:
            return own
        return [(path_of(keyed, SINGLE), path) for _, path in own] + self.configured.keyed

    @property
    def own_folder(self) -> Path:
        """The folder with the component's config."""
        if self.configured is not None:
            return self.configured.own_folder
        return self.folder / self.component.path

    @cached_property
    def headers(self) -> Mapping[str, Header]:
        """Headers of the weight files, by path relative to the model's folder."""
        weights = [name for name in self.names if name.endswith((WEIGHTS, GGUF))]
        return {name: _whole_header(self.folder / name) for name in weights}

    @cached_property
    def shapes(self) -> ComponentShapes:
        """Names, dtypes and shapes of the weights, and the component's configs.

        Raises:
            ModelError: the config is damaged, or a single file of weights is not of the component's class.

        """
        if self.configured is None:
            return self.stored_shapes
        config = self.configured.shapes.config
        return in_layout(replace(self.stored_shapes, config=config), self.layout)

    @cached_property
    def stored_shapes(self) -> ComponentShapes:
        """The same with the names that the files have."""
        tensors = {name: info for h in self.headers.values() for name, info in h.tensors.items()}
        configs = {
            name: read_table(self.own_folder / name)
            for name in (CONFIG, *OTHER_CONFIGS)
            if path_of(self.component, name) in self.names
        }
        config = configs.pop(CONFIG, {})
        metadata = {key: value for h in self.headers.values() for key, value in h.metadata.items()}
        made = ComponentShapes(self.component, tensors, config, self.names, configs, self.variant, metadata)
        if not is_bitsandbytes(config):
            return made
        return made.read([header.tensors for header in self.headers.values()], self._descriptions())

    def _descriptions(self) -> dict[str, bytes]:
        """The contents of the tensors that say what others are, as far as they are as long as usual ones."""
        found: dict[str, bytes] = {}
        for name, header in self.headers.items():
            with open_to_read(self.folder / name) as file:
                for tensor, info in header.tensors.items():
                    if is_description(tensor):
                        file.seek(info.start)
                        found[tensor] = file.read(min(info.end - info.start, DESCRIPTION_LIMIT))
        return found


@dataclass(frozen=True)
class Folder:
    """The files of a folder on this machine: the ``Contents`` of a selection."""

    path: Path

    @property
    def title(self) -> str:
        return str(self.path)

    def table(self, name: str) -> dict[str, Any]:
        return read_table(self.path / name)

    def header(self, name: str) -> Header:
        return _whole_header(self.path / name)


def open_file(model: Path, component: Component, name: str) -> ComponentFiles:
    """A single file with a component's weights, in a folder; its config is elsewhere.

    Raises:
        ModelError: it is missing, cut off or damaged.

    """
    if not (model / name).is_file():
        suffix = PurePosixPath(name).suffix
        there = sorted(path.name for path in (model / name).parent.glob(f"*{suffix}"))
        beside = did_you_mean(PurePosixPath(name).name, there)
        raise ModelError(f"there is no file {model / name}{beside}")
    files = ComponentFiles(component, model, (name,))
    _ = files.headers
    return files


def open_component(model: Path, component: Component, variant: str | None = None) -> ComponentFiles:
    """The component's files in a model folder; those of the variant, if it has weights of it.

    Raises:
        ModelError: a file is missing or cut off, or all weights are pickled.

    """
    folder = model / component.path
    try:
        names = [path_of(component, entry.name) for entry in folder.iterdir()]
    except OSError:
        raise ModelError(
            f"the model in {model} has no folder '{component.path}', which holds the component "
            f"'{component.name}': is it a diffusers folder, and complete?"
        ) from None
    chosen = select(names, component, Folder(folder), variant)
    if component.config_only and not chosen.names:
        raise ModelError(f"{folder / 'config.json'} is missing")
    files = ComponentFiles(component, model, chosen.names, chosen.variant, chosen.index)
    for name in files.names:
        _refuse_pointer(model / name)
    _ = files.headers  # reads and checks them
    return files


@dataclass(frozen=True)
class ComponentPlace:
    """Where a component's files are on this machine; it is sent to workers."""

    component: Component
    """Its folder is the one that it has in ``folder``."""
    folder: Path
    """Of the model that it is from."""
    variant: str | None = None
    weights: Path | None = None
    """A single file with its weights, which is elsewhere; only its config is in the folder."""
    layout: Layout | None = None
    """What the tensors of that file become."""

    @property
    def has_config(self) -> bool:
        return (self.folder / self.component.path / CONFIG).is_file()

    def open(self) -> ComponentFiles:
        """Its files; raises as :func:`open_component` and :func:`open_file`."""
        if self.weights is None:
            return open_component(self.folder, self.component, self.variant)
        config = open_component(self.folder, replace(self.component, config_only=True, buffers=()))
        single = open_file(self.weights.parent, self.component, self.weights.name)
        return replace(single, configured=config, layout=self.layout)

    def config(self) -> dict[str, Any]:
        """Its ``config.json``.

        Raises:
            ModelError: it is missing or not a JSON object.

        """
        return read_table(self.folder / self.component.path / CONFIG)


def read_index(model: Path) -> dict[str, Any]:
    """The pipeline's ``model_index.json``; empty if the folder has none.

    Raises:
        ModelError: it is not a JSON object.

    """
    return read_table(model / INDEX) if (model / INDEX).is_file() else {}


def read_table(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it is missing or not a JSON object.

    """
    data = _start(path, TABLE_LIMIT + 1)
    if len(data) > TABLE_LIMIT:
        raise ModelError(f"{path} is damaged: it is longer than {TABLE_LIMIT} bytes")
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError(f"{path} is damaged: not a JSON table; fetch it again")
    return table


def _whole_header(path: Path) -> Header:
    try:
        return read_gguf(path) if path.suffix == GGUF else read_header(path)
    except UnreadFormatError as error:
        raise ModelError(f"{path} cannot be loaded: {error}") from None
    except HeaderError as error:
        _refuse_pointer(path)
        raise ModelError(f"{path} is damaged: {error}; delete it and fetch it again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _start(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a file.

    Raises:
        ModelError: it cannot be read, or is a git-lfs pointer.

    """
    try:
        with open_to_read(path) as file:
            data = file.read(size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if is_lfs_pointer(data):
        raise ModelError(
            f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull` in {path.parent}"
        )
    return data


def _refuse_pointer(path: Path) -> None:
    """Raise a ModelError for a git-lfs pointer or an empty JSON file."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if size <= POINTER_LIMIT:
        _start(path, len(LFS_POINTER))
    if not size and path.suffix == ".json":
        raise ModelError(f"{path} is damaged: it is empty; fetch it again")
